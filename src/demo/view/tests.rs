//! The screen, cell by cell.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::Banner;
use super::screen::{Scene, render};
use crate::demo::model::Model;
use crate::demo::report::{Absence, Content, Report, Who};
use crate::ids::MessageId;

fn drawn(width: u16, height: u16) -> String {
    let began = Instant::now();
    let at = |ms: u64| began + Duration::from_millis(ms);
    let mut model = Model::new(began);
    let mut news = VecDeque::new();
    let mut hear = |report| news.extend(model.hear(report).into_iter().filter(|item| item.news.is_notable()));
    for index in 0..3 {
        hear(Report::Online { who: Who::Main(index), at: at(0) });
        hear(Report::Online { who: Who::Handheld(index), at: at(0) });
    }
    hear(Report::Offline { who: Who::Main(1), at: at(4_000), why: Absence::CutOff });
    for (n, text) in [(1, "2 gyoza, 1 beer"), (2, "3 katsu curry, 2 iced coffee")] {
        let id = MessageId { ms: n, n: 0 };
        let sent_at = at(n * 3_000);
        let content = Content { from: "hand-1".into(), table: (n * 6).to_string(), text: text.into() };
        hear(Report::Stored { id, content: content.clone(), sent_at, at: sent_at + Duration::from_millis(2) });
        for main in (0..3).filter(|main| n == 1 || *main != 1) {
            let at = sent_at + Duration::from_micros(1_300);
            hear(Report::Delivered { id, main, content: content.clone(), since: began, at });
        }
    }
    let id = MessageId { ms: 1, n: 0 };
    hear(Report::Dealt { id, by: "till-1".into(), status: "done".into(), at: at(4_500) });
    let banner = Banner::new(([127, 0, 0, 1], 8080).into(), Some(([127, 0, 0, 1], 9090).into()));
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let scene = Scene { model: &model, banner: &banner, news: &news, now: at(6_500) };
    terminal.draw(|frame| render(frame, &scene)).unwrap();
    let lines: Vec<String> = terminal
        .backend()
        .buffer()
        .content()
        .chunks(usize::from(width))
        .map(|cells| cells.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned())
        .collect();
    lines.join("\n")
}

#[test]
fn a_terminal_of_80_by_24_shows_the_way_of_every_message() {
    let expected = include_str!("80x24.txt");
    assert_eq!(drawn(80, 24), expected.trim_end_matches('\n'), "\n{}", drawn(80, 24));
}

#[test]
fn small_and_large_terminals_keep_the_messages() {
    for (width, height) in [(66, 9), (70, 15), (76, 19), (200, 60)] {
        let drawn = drawn(width, height);
        assert!(drawn.contains("waits") && drawn.contains("✓ till-1"), "{width} × {height}:\n{drawn}");
        assert!(drawn.contains("missed 0"), "{width} × {height}:\n{drawn}");
    }
    assert!(drawn(200, 60).contains("3 katsu curry, 2 iced coffee"));
}

#[test]
fn a_terminal_that_is_too_small_says_so() {
    for (width, height) in [(65, 24), (80, 8), (10, 2), (1, 1)] {
        assert!(!drawn(width, height).contains("till-1"));
    }
    assert!(drawn(40, 8).contains("66 × 9"));
}
