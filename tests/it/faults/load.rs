//! A shop at work while something breaks: mains that must get everything, and publishers.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Encoding, Fault, Login, Publisher, Record, Recorder, Summary, Urls, unique};

/// Mains and publishers of one shop, spread over the nodes.
pub(super) struct Load {
    pub(super) shop: String,
    mains: Vec<Recorder>,
    pub(super) publishers: Vec<Publisher>,
}

impl Load {
    /// Four mains, and three publishers of `count` messages each.
    pub(super) async fn start(urls: &Urls, count: usize) -> Load {
        Load::of_shop(&unique("shop"), urls, count).await
    }

    /// The same with publishers that go on, at a lower pace, until [`Load::enough`].
    pub(super) async fn steady(urls: &Urls) -> Load {
        Load::of_logins(urls, |login| login).await
    }

    /// The same, each logging in as `login` says.
    pub(super) async fn of_logins(urls: &Urls, login: impl Fn(Login) -> Login) -> Load {
        Load::paced(&unique("shop"), urls, (usize::MAX, Duration::from_millis(40)), login).await
    }

    /// As [`Load::start`], of this shop.
    pub(super) async fn of_shop(shop: &str, urls: &Urls, count: usize) -> Load {
        Load::paced(shop, urls, (count, Duration::from_millis(10)), |login| login).await
    }

    async fn paced(
        shop: &str,
        urls: &Urls,
        (count, pace): (usize, Duration),
        as_said: impl Fn(Login) -> Login,
    ) -> Load {
        let mut mains = Vec::new();
        for n in 0..4 {
            let encoding = if n % 2 == 0 { Encoding::Json } else { Encoding::MsgPack };
            let login = as_said(Login::main(shop, &format!("till-{n}")).encoding(encoding));
            mains.push(Recorder::logged_in(login, urls, n).await);
        }
        let publish = |n: usize| {
            let login = as_said(Login::sub(shop, &format!("hand-{n}")));
            // By every node: where one serves nobody, the others go on.
            Publisher::start_at(n, login, urls, count, pace, json!({"type": "add", "data": {"from": n}}))
        };
        let publishers = (0..3).map(publish).collect();
        Load { shop: shop.to_owned(), mains, publishers }
    }

    /// Waits until so many more messages have been accepted than now.
    pub(super) async fn go_on(&self, count: usize) {
        let accepted = async || self.publishers.iter().map(|publisher| publisher.accepted().len()).sum::<usize>();
        let goal = accepted().await + count;
        let what = format!("{goal} accepted messages");
        crate::harness::eventually(Duration::from_secs(60), &what, async || accepted().await >= goal).await;
    }

    /// Has every main lose its connection; each comes back by itself.
    pub(super) fn lose_connections(&self) {
        self.mains.iter().for_each(Recorder::lose_connection);
    }

    /// The present connections of the mains, by their names.
    pub(super) fn connections(&self) -> BTreeSet<String> {
        let present = self.mains.iter().map(|main| {
            let record = main.record();
            let connection = record.connections.last().expect("it has been logged in");
            connection.welcome["conn"].as_str().expect("a conn").to_owned()
        });
        present.collect()
    }

    /// The publishers end after the messages under way.
    pub(super) fn enough(&self) {
        self.publishers.iter().for_each(Publisher::enough);
    }

    /// Waits for the end and says what became of it all.
    pub(super) async fn survived(self, mut fault: Fault) -> Summary {
        fault.shop(self.publishers, self.mains).await;
        let summary = fault.summary();
        println!("{summary}");
        summary
    }

    /// Waits for the end and checks that every main got all that was accepted, in order, after a primary of Redis was
    /// lost. What that one had pushed and no replica had was never accepted: it comes again under the id of the retry.
    pub(super) async fn assert_survived_failover(self, fault: Fault) -> Summary {
        let summary = self.survived(fault).await;
        assert_eq!((summary.lost, summary.repeated, summary.disordered), (0, 0, 0), "{summary}");
        summary
    }

    /// Waits for the end and checks that every main got exactly what was accepted, in order.
    pub(super) async fn assert_survived(self, mut fault: Fault) -> (Summary, Vec<Record>) {
        let records = fault.shop(self.publishers, self.mains).await;
        (fault.assert_survived(), records)
    }
}
