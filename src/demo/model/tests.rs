//! What counts, what does not, and when something is missed.

use super::*;

struct Told {
    model: Model,
    began: Instant,
    news: Vec<News>,
}

impl Told {
    /// Everybody is logged in.
    fn open() -> Told {
        let began = Instant::now();
        let mut told = Told { model: Model::new(began), began, news: Vec::new() };
        for index in 0..3 {
            told.hear(Report::Online { who: Who::Main(index), at: began });
            told.hear(Report::Online { who: Who::Handheld(index), at: began });
        }
        told
    }

    fn hear(&mut self, report: Report) {
        self.news.extend(self.model.hear(report).into_iter().map(|item| item.news));
    }

    fn at(&self, ms: u64) -> Instant {
        self.began + Duration::from_millis(ms)
    }

    fn stored(&mut self, n: u64) {
        let at = self.at(n);
        self.hear(Report::Stored { id: id(n), content: content("hand-1"), sent_at: at, at });
    }

    fn delivered(&mut self, n: u64, main: usize, from: &str, since: u64) {
        let (since, at) = (self.at(since), self.at(n + 1));
        self.hear(Report::Delivered { id: id(n), main, content: content(from), since, at });
    }

    fn dealt(&mut self, n: u64) {
        let at = self.at(n + 2);
        self.hear(Report::Dealt { id: id(n), by: "till-1".into(), status: "done".into(), at });
    }

    fn rest(&mut self) {
        for handheld in 0..3 {
            self.hear(Report::Resting { handheld });
        }
    }

    fn summary(&self, is_end: bool) -> Summary {
        self.model.summary(self.at(60_000), is_end)
    }
}

fn id(n: u64) -> MessageId {
    MessageId { ms: n, n: 0 }
}

fn content(from: &str) -> Content {
    Content { from: from.into(), table: "1".into(), text: "tea".into() }
}

#[test]
fn a_message_that_a_main_was_passed_over_with_is_missed_at_once() {
    let mut told = Told::open();
    for n in [1, 2] {
        told.stored(n);
        told.delivered(n, 0, "hand-1", 0);
        told.delivered(n, 2, "hand-1", 0);
    }
    assert_eq!(told.summary(false).missed, 0, "till-2 may still get them");
    told.delivered(2, 1, "hand-1", 0);
    assert_eq!(told.summary(false).missed, 1, "till-2 got the second and not the first");
    told.delivered(1, 1, "hand-1", 0);
    assert!(told.summary(true).is_clean());
}

#[test]
fn what_is_not_there_at_the_end_is_missed() {
    let mut told = Told::open();
    told.stored(1);
    assert_eq!(told.summary(false).missed, 0);
    assert_eq!(told.summary(true).missed, 3);
    assert!(!told.summary(true).is_clean());
}

#[test]
fn nothing_may_come_twice_on_one_connection_and_anything_may_come_again_on_the_next() {
    let mut told = Told::open();
    told.hear(Report::Again);
    assert!(told.summary(true).is_clean());
    told.hear(Report::Twice { main: 0, id: id(1), at: told.at(1) });
    assert!(!told.summary(true).is_clean());
}

#[test]
fn a_till_that_comes_back_is_owed_what_it_was_away_for() {
    let mut told = Told::open();
    told.hear(Report::Offline { who: Who::Main(1), at: told.at(1), why: Absence::CutOff });
    for n in [10, 20] {
        told.stored(n);
        told.delivered(n, 0, "hand-1", 0);
        told.delivered(n, 2, "hand-1", 0);
    }
    told.news.clear();
    told.hear(Report::Online { who: Who::Main(1), at: told.at(3_000) });
    told.delivered(10, 1, "hand-1", 3_000);
    assert_eq!(told.news[0], News::Back { main: "till-2", after: Duration::from_millis(2_999), waiting: 2 });
    assert!(!told.news.iter().any(|news| matches!(news, News::CaughtUp { .. })));
    told.delivered(20, 1, "hand-1", 3_000);
    assert!(told.news.iter().any(|news| matches!(news, News::CaughtUp { waiting: 2, .. })));
    let summary = told.summary(true);
    assert_eq!((summary.cut_offs, summary.caught_up, summary.missed), (1, 2, 0));
    assert_eq!(summary.latency_p99, Some(Duration::from_millis(1)), "late ones for want of a connection don't count");
}

#[test]
fn stored_is_told_before_delivered_whichever_was_heard_first() {
    let mut told = Told::open();
    told.news.clear();
    told.delivered(5, 0, "hand-1", 0);
    assert!(told.news.is_empty());
    told.stored(5);
    assert!(matches!(told.news[..], [News::Stored { .. }, News::Delivered { main: "till-1", .. }]), "{:?}", told.news);
    assert_eq!(told.summary(false).stored, 1);
}

#[test]
fn what_guests_send_is_shown_and_not_counted() {
    let mut told = Told::open();
    told.news.clear();
    told.delivered(1, 0, "me", 0);
    told.dealt(1);
    assert!(matches!(told.news[..], [News::Stored { .. }, News::Delivered { .. }, News::Dealt { .. }]));
    let summary = told.summary(true);
    assert_eq!((summary.stored, summary.dealt, summary.of_guests), (0, 0, 1));
    assert!(summary.is_clean(), "two mains have not got it, and perhaps were not meant to");
    told.rest();
    assert!(told.model.is_settled());
}

#[test]
fn it_is_settled_when_everything_is_everywhere_and_dealt_with() {
    let mut told = Told::open();
    told.stored(1);
    told.rest();
    for main in 0..3 {
        assert!(!told.model.is_settled());
        told.delivered(1, main, "hand-1", 0);
    }
    assert!(!told.model.is_settled());
    told.dealt(1);
    assert!(told.model.is_settled());
}

#[test]
fn a_main_whose_name_was_taken_is_not_waited_for() {
    let mut told = Told::open();
    told.hear(Report::Replaced { who: Who::Main(1), at: told.at(1) });
    told.stored(1);
    told.delivered(1, 0, "hand-1", 0);
    told.delivered(1, 2, "hand-1", 0);
    told.dealt(1);
    told.rest();
    assert!(told.model.is_settled() && told.summary(true).is_clean());
}

#[test]
fn what_is_over_is_forgotten_and_what_is_not_is_kept() {
    let mut told = Told::open();
    told.stored(1);
    for n in 2..500 {
        told.stored(n);
        for main in 0..3 {
            told.delivered(n, main, "hand-1", 0);
        }
        told.dealt(n);
    }
    assert_eq!(told.model.rows.len(), ROWS_KEPT);
    assert!(told.model.rows.contains_key(&id(1)));
    assert_eq!(told.summary(false).stored, 499);
    assert_eq!(told.summary(false).missed, 3);
    told.delivered(2, 0, "hand-1", 0);
    assert_eq!(told.summary(false).stored, 499, "a late word of what is over changes nothing");
}
