//! The shop's devices as tasks.
//!
//! Owns the tasks and the wishes they follow. Knows no model; what the devices tell goes past it.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::client::{Dial, Dice};
use crate::demo::devices::{Handheld, MainDevice, Seat, Wish};
use crate::demo::plan::Order;
use crate::demo::report::{HANDHELDS, MAINS, Report, Who};

/// Reports that may wait to be heard.
const REPORTS_MAX: usize = 1024;
/// How long devices may take to say good-bye.
const CLOSE_WAIT: Duration = Duration::from_secs(6);

/// The devices, at work until [`Shop::close`].
pub struct Shop {
    mains: Vec<watch::Sender<Wish>>,
    handhelds: Vec<watch::Sender<Wish>>,
    tasks: JoinSet<()>,
}

impl Shop {
    /// Switches the mains on; the handhelds wait for [`Order::Begin`].
    pub fn open(dial: &Dial, run: u64) -> (Shop, mpsc::Receiver<Report>) {
        let (reports, inbox) = mpsc::channel(REPORTS_MAX);
        let mut tasks = JoinSet::new();
        let seat = |who, number: usize, wish| {
            let (sender, wishes) = watch::channel(wish);
            let dice = Dice::new(run.wrapping_add(number as u64));
            (sender, Seat { who, dial: dial.clone(), reports: reports.clone(), wishes, dice })
        };
        let mut mains = Vec::new();
        for index in 0..MAINS.len() {
            let (sender, seat) = seat(Who::Main(index), index, Wish::Work);
            tasks.spawn(MainDevice::new(index, seat).run());
            mains.push(sender);
        }
        let mut handhelds = Vec::new();
        for index in 0..HANDHELDS.len() {
            let (sender, seat) = seat(Who::Handheld(index), MAINS.len() + index, Wish::Away);
            tasks.spawn(Handheld::new(index, run, seat).run());
            handhelds.push(sender);
        }
        (Shop { mains, handhelds, tasks }, inbox)
    }

    /// Passes the plan's order on to those whom it concerns.
    pub fn follow(&mut self, order: Order) {
        match order {
            Order::Begin => wish(&self.handhelds, Wish::Work),
            Order::CutOff(main) => wish(self.mains.get(main), Wish::Away),
            Order::Restore(main) => wish(self.mains.get(main), Wish::Work),
            Order::Finish => {
                wish(&self.mains, Wish::Work);
                wish(&self.handhelds, Wish::Rest);
            }
        }
    }

    /// Ends every device; what they still tell goes to `hear`.
    pub async fn close(mut self, inbox: &mut mpsc::Receiver<Report>, mut hear: impl FnMut(Report)) {
        wish(self.mains.iter().chain(&self.handhelds), Wish::Stop);
        let closed = async {
            // The channel ends with the last device.
            while let Some(report) = inbox.recv().await {
                hear(report);
            }
        };
        if tokio::time::timeout(CLOSE_WAIT, closed).await.is_err() {
            self.tasks.abort_all();
        }
        while self.tasks.join_next().await.is_some() {}
    }
}

fn wish<'a>(devices: impl IntoIterator<Item = &'a watch::Sender<Wish>>, wish: Wish) {
    for device in devices {
        // A device that was replaced has ended and follows no wishes; that is no error.
        device.send_replace(wish);
    }
}
