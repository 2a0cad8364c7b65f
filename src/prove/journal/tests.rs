use serde_json::json;

use super::*;
use crate::prove::payload::Facts;
use crate::prove::verdict::{Broken, Run, Verdict};

const CREW: Crew = Crew { mains: 2, subs: 2 };
const RUN: u64 = 7;
/// The first sub.
const SUB: u8 = 2;

struct Scene {
    journal: Journal,
    now: Instant,
}

impl Scene {
    fn new() -> Scene {
        let of = Of { run: RUN, shop: 0, name: "prove-1".into(), crew: CREW, steady: 0b0101 };
        Scene { journal: Journal::new(of), now: Instant::now() }
    }

    fn publish(&mut self, due: Mask, id: u64) -> u64 {
        let number = self.journal.publish(due, self.now);
        self.journal.accepted(number, at(id), MessageId::ZERO, self.now);
        number
    }

    fn deliver(&mut self, device: u8, number: u64, due: Mask, id: u64) {
        let received = self.journal.message(device, at(id), &data(number, due)).0;
        self.journal.proven(device, received, self.now);
    }

    fn broken(&mut self) -> Broken {
        self.journal.list_begins();
        self.journal.list_ended();
        Verdict::of(Run { name: "r".into(), lasted: Duration::ZERO, devices: 4 }, [&self.journal]).broken
    }
}

fn at(ms: u64) -> MessageId {
    MessageId { ms, n: 0 }
}

fn data(number: u64, due: Mask) -> Value {
    serde_json::to_value(Payload::new(number, Facts { run: RUN, shop: 0, from: SUB, due, deal: false })).unwrap()
}

#[test]
fn what_everybody_has_breaks_nothing_and_is_forgotten() {
    let mut scene = Scene::new();
    let number = scene.publish(0b11, 1);
    scene.now += Duration::from_millis(30);
    scene.deliver(0, number, 0b11, 1);
    assert_eq!(scene.journal.lacking(), 1);
    scene.deliver(1, number, 0b11, 1);
    assert_eq!(scene.broken(), Broken::default());
    assert_eq!(scene.journal.tally().delivered, 2);
    assert_eq!(scene.journal.tally().latency.max().unwrap().as_millis(), 30, "of the steady device");
    scene.now += KEPT + Duration::from_secs(1);
    let next = scene.publish(0b11, 2);
    assert_eq!(scene.journal.messages.len(), 1);
    scene.deliver(0, number, 0b11, 1);
    assert_eq!(scene.journal.tally().again, 1, "an old one again, on a later connection, is allowed");
    assert_eq!(scene.broken(), Broken { lost: 2, ..Broken::default() }, "of message {next}");
}

#[test]
fn what_was_sent_and_not_acknowledged_is_not_delivered() {
    let mut scene = Scene::new();
    let number = scene.publish(0b1, 1);
    scene.journal.message(0, at(1), &data(number, 0b1));
    assert_eq!(scene.broken(), Broken { lost: 1, ..Broken::default() });
    scene.journal.note_lacking();
    assert!(scene.journal.tally().examples[0].contains("main-1"), "{:?}", scene.journal.tally().examples);
}

#[test]
fn a_message_of_unknown_outcome_is_neither_lost_nor_settled() {
    let mut scene = Scene::new();
    let number = scene.journal.publish(0b1, scene.now);
    assert_eq!((scene.journal.lacking(), scene.journal.unanswered()), (0, 1));
    scene.journal.refused(number, scene.now);
    assert_eq!((scene.journal.lacking(), scene.journal.unanswered()), (0, 0));
}

#[test]
fn what_comes_to_the_wrong_place_is_told_by_its_own_words() {
    let mut scene = Scene::new();
    let number = scene.publish(0b1, 1);
    assert_eq!(scene.journal.message(1, at(1), &data(number, 0b1)).0, Received::Other);
    let of_another = Facts { run: RUN, shop: 5, from: SUB, due: 0b11, deal: false };
    scene.journal.message(1, at(2), &serde_json::to_value(Payload::new(1, of_another)).unwrap());
    let mut changed = data(number, 0b1);
    changed["filling"] = json!("soup");
    scene.journal.message(0, at(1), &changed);
    assert_eq!(scene.journal.tally().wrong, 3);
    scene.journal.message(0, at(3), &json!("a stranger's"));
    let earlier = Facts { run: 6, shop: 0, from: SUB, due: 0b1, deal: false };
    scene.journal.message(0, at(4), &serde_json::to_value(Payload::new(1, earlier)).unwrap());
    assert_eq!((scene.journal.tally().wrong, scene.journal.tally().strangers), (3, 2));
}

#[test]
fn one_message_under_two_ids_is_doubled() {
    let mut scene = Scene::new();
    let number = scene.publish(0b11, 1);
    scene.journal.accepted(number, at(1), MessageId::ZERO, scene.now);
    assert_eq!(scene.broken().doubled, 0, "a duplicate has the first one's id");
    scene.journal.accepted(number, at(2), MessageId::ZERO, scene.now);
    assert_eq!(scene.broken().doubled, 1);
    scene.journal.message(0, at(2), &data(number, 0b11));
    assert_eq!(scene.broken().doubled, 2);
}

#[test]
fn an_id_that_is_not_above_what_its_sender_knew_is_disordered() {
    let mut scene = Scene::new();
    let number = scene.journal.publish(0b1, scene.now);
    scene.journal.accepted(number, at(5), at(5), scene.now);
    assert_eq!(scene.broken().disordered, 1);
    scene.journal.came(0, at(5), Came::Repeated, scene.now);
    assert_eq!(scene.broken().repeated, 1);
}

#[test]
fn a_deal_has_one_winner_and_everybody_else_is_told() {
    let mut scene = Scene::new();
    let number = scene.publish(0b11, 1);
    scene.deliver(0, number, 0b11, 1);
    scene.deliver(1, number, 0b11, 1);
    let mark = Mark { run: RUN, by: 0, from: SUB };
    scene.journal.deal(at(1), mark);
    assert_eq!(scene.broken(), Broken { lost: 2, ..Broken::default() }, "main-2 and sub-1");
    for device in [1, SUB] {
        let received = scene.journal.status(device, at(1), &mark.to_string(), "main-1");
        scene.journal.proven(device, received, scene.now);
    }
    assert_eq!(scene.broken(), Broken::default());
    scene.journal.status(0, at(1), &mark.to_string(), "main-1");
    assert_eq!(scene.broken(), Broken { wrong: 1, ..Broken::default() }, "who dealt is not told");
    scene.journal.deal(at(1), Mark { by: 1, ..mark });
    scene.journal.deal(at(1), Mark { by: 1, ..mark });
    assert_eq!(scene.broken().split, 1);
}

#[test]
fn the_list_has_to_show_what_was_acknowledged() {
    let mut scene = Scene::new();
    let number = scene.publish(0b11, 1);
    scene.deliver(0, number, 0b11, 1);
    scene.deliver(1, number, 0b11, 1);
    let item: Item = serde_json::from_value(json!({
        "id": "1-0", "data": data(number, 0b11), "delivered": {"main-1": true, "main-2": false},
    }))
    .unwrap();
    assert_eq!(scene.journal.list_after(), at(1).before());
    scene.journal.list_begins();
    scene.journal.listed(&[item]);
    assert_eq!(scene.journal.tally().unproven, None, "it is not through yet");
    scene.journal.list_ended();
    assert_eq!(scene.journal.tally().unproven, Some(1));
}

#[test]
fn silence_is_measured_at_steady_devices_while_messages_flow() {
    let mut scene = Scene::new();
    scene.journal.measure_silence(true, scene.now);
    for (device, after) in [(0, 2), (1, 9), (0, 12)] {
        let now = scene.now + Duration::from_secs(after);
        scene.journal.came(device, at(after), Came::InOrder, now);
    }
    scene.journal.measure_silence(false, scene.now);
    scene.journal.came(0, at(99), Came::InOrder, scene.now + Duration::from_secs(99));
    assert_eq!(scene.journal.tally().silence_max, Duration::from_secs(10));
}
