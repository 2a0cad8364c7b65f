//! When what happens: the opening, the cut-offs and the end.
//!
//! Pure: looks at the model and the time and says what is next. Asked by the parent, at every turn.

use std::time::{Duration, Instant};

use crate::demo::model::Model;
use crate::demo::report::TILLS;

/// The first cut-off, how long one lasts, and the time from one to the next.
const FIRST_CUT: Duration = Duration::from_secs(4);
const CUT_LASTS: Duration = Duration::from_secs(3);
const CUT_EVERY: Duration = Duration::from_secs(10);
/// How long the demo's own devices may take to log in.
const OPENING_MAX: Duration = Duration::from_secs(10);
/// How long what is under way may take to come to its end.
const FINISH_MAX: Duration = Duration::from_secs(10);

/// What is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Shop(Order),
    /// Everything has come to its end, or has had its time.
    Over,
    /// The demo's own devices do not get in.
    Hopeless(Duration),
}

/// What the shop is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Begin,
    /// Pull the plug of this main.
    CutOff(usize),
    Restore(usize),
    /// No new orders.
    Finish,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Running,
    Finishing { until: Instant },
}

/// The course of the demo.
#[derive(Debug)]
pub struct Plan {
    phase: Phase,
    began: Instant,
    lasts: Option<Duration>,
    ends_at: Option<Instant>,
    cut_lasts: Duration,
    next_cut: Instant,
    /// Who is cut off, and until when.
    cut_off: Option<(usize, Instant)>,
    cuts: usize,
    /// How often the end was asked for; the second time it is not waited for.
    asked: u32,
}

impl Plan {
    /// A plan that begins now; it lasts from when all are logged in.
    pub fn new(now: Instant, lasts: Option<Duration>) -> Plan {
        Plan {
            phase: Phase::Opening,
            began: now,
            lasts,
            ends_at: None,
            cut_lasts: CUT_LASTS,
            next_cut: now,
            cut_off: None,
            cuts: 0,
            asked: 0,
        }
    }

    /// The user wants it to end.
    pub fn end(&mut self) {
        self.asked += 1;
    }

    /// What is to be done now, if anything.
    pub fn step(&mut self, model: &Model, now: Instant) -> Option<Step> {
        match self.phase {
            Phase::Opening if model.is_open() => Some(self.begin(now)),
            Phase::Opening if self.asked > 0 => Some(Step::Over),
            Phase::Opening => {
                let waited = now.saturating_duration_since(self.began);
                (waited > OPENING_MAX).then_some(Step::Hopeless(OPENING_MAX))
            }
            Phase::Running if self.asked > 0 || self.ends_at.is_some_and(|end| now >= end) => {
                self.phase = Phase::Finishing { until: now + FINISH_MAX };
                Some(Step::Shop(Order::Finish))
            }
            Phase::Running => self.cut(now).map(Step::Shop),
            Phase::Finishing { until } => (model.is_settled() || now >= until || self.asked > 1).then_some(Step::Over),
        }
    }

    fn begin(&mut self, now: Instant) -> Step {
        self.phase = Phase::Running;
        self.ends_at = self.lasts.map(|lasts| now + lasts);
        // A short demo has its cut-off too.
        let share = |part: f64, most: Duration| self.lasts.map_or(most, |lasts| lasts.mul_f64(part).min(most));
        self.cut_lasts = share(0.3, CUT_LASTS);
        self.next_cut = now + share(0.3, FIRST_CUT);
        Step::Shop(Order::Begin)
    }

    fn cut(&mut self, now: Instant) -> Option<Order> {
        if let Some((main, until)) = self.cut_off {
            if now < until {
                return None;
            }
            self.cut_off = None;
            return Some(Order::Restore(main));
        }
        // One that could not be seen to come back is not worth watching.
        let has_time = self.ends_at.is_none_or(|end| now + self.cut_lasts.mul_f64(1.2) <= end);
        if now < self.next_cut || !has_time {
            return None;
        }
        let main = self.cuts % TILLS;
        self.cuts += 1;
        self.next_cut = now + CUT_EVERY;
        self.cut_off = Some((main, now + self.cut_lasts));
        Some(Order::CutOff(main))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::report::{MAINS, Report, Who};

    fn open(began: Instant) -> Model {
        let mut model = Model::new(began);
        for index in 0..MAINS.len() {
            model.hear(Report::Online { who: Who::Main(index), at: began });
        }
        model
    }

    /// The orders of a demo, with their times in tenths of a second.
    fn orders(lasts: Option<u64>, tenths: u64) -> Vec<(u64, Order)> {
        let began = Instant::now();
        let model = open(began);
        let mut plan = Plan::new(began, lasts.map(Duration::from_secs));
        let step = |tenth: u64| match plan.step(&model, began + Duration::from_millis(tenth * 100)) {
            Some(Step::Shop(order)) => Some((tenth, order)),
            _ => None,
        };
        (0..tenths).filter_map(step).collect()
    }

    #[test]
    fn the_tills_are_cut_off_in_turn() {
        let expected = [
            (0, Order::Begin),
            (40, Order::CutOff(0)),
            (70, Order::Restore(0)),
            (140, Order::CutOff(1)),
            (170, Order::Restore(1)),
            (240, Order::CutOff(0)),
        ];
        assert_eq!(orders(None, 250), expected);
    }

    #[test]
    fn a_short_demo_has_its_cut_off_too() {
        let expected = [(0, Order::Begin), (15, Order::CutOff(0)), (30, Order::Restore(0)), (50, Order::Finish)];
        assert_eq!(orders(Some(5), 60), expected);
    }

    #[test]
    fn nobody_is_cut_off_who_could_not_be_seen_to_come_back() {
        assert_eq!(orders(Some(16), 170).iter().filter(|(_, order)| matches!(order, Order::CutOff(_))).count(), 1);
    }

    #[test]
    fn an_opening_that_fails_is_given_up() {
        let began = Instant::now();
        let mut plan = Plan::new(began, None);
        assert_eq!(plan.step(&Model::new(began), began), None);
        let step = plan.step(&Model::new(began), began + OPENING_MAX + Duration::from_secs(1));
        assert_eq!(step, Some(Step::Hopeless(OPENING_MAX)));
    }

    #[test]
    fn the_end_waits_for_what_is_under_way_and_not_when_asked_twice() {
        let began = Instant::now();
        let model = open(began);
        let mut plan = Plan::new(began, None);
        plan.step(&model, began);
        plan.end();
        assert_eq!(plan.step(&model, began), Some(Step::Shop(Order::Finish)));
        assert_eq!(plan.step(&model, began), None, "the handhelds do not rest yet");
        plan.end();
        assert_eq!(plan.step(&model, began), Some(Step::Over));
    }
}
