//! The screen: the model as rows and columns, for any size from 66 × 9 on.
//!
//! Pure: draws into a frame and reads nothing but what it is given. The most important part stays
//! longest when the window shrinks: the messages, then the figures, then the news, then how to join.

use std::collections::VecDeque;
use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Table};

use super::Banner;
use crate::demo::model::{Model, Row};
use crate::demo::news::{Item, short};
use crate::demo::report::{HANDHELDS, MAINS};
use crate::demo::summary::time_or_dash;

const WIDTH_MIN: u16 = 66;
const HEIGHT_MIN: u16 = 9;
/// Heights from which on there is room for the news, and for how to join in.
const NEWS_FROM: u16 = 15;
const JOIN_FROM: u16 = 20;
/// The width from which on there is room for the sender of a message.
const SENDER_FROM: u16 = 76;
/// The widest the order's column is useful.
const ORDER_MAX: u16 = 46;

const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const GOOD: Style = Style::new().fg(Color::Green);
const WAITS: Style = Style::new().fg(Color::Yellow);
const BAD: Style = Style::new().fg(Color::Red);
const HEAD: Style = Style::new().fg(Color::Cyan);

/// What there is to be drawn.
pub struct Scene<'a> {
    pub model: &'a Model,
    pub banner: &'a Banner,
    pub news: &'a VecDeque<Item>,
    pub now: Instant,
}

/// Draws everything.
pub fn render(frame: &mut Frame, scene: &Scene) {
    let area = frame.area();
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        let text = format!("the demo runs; to see it, give it {WIDTH_MIN} × {HEIGHT_MIN} (q quits)");
        frame.render_widget(Paragraph::new(text).wrap(ratatui::widgets::Wrap { trim: true }), area);
        return;
    }
    let (news, join) = match area.height {
        JOIN_FROM.. => (4, 4),
        NEWS_FROM.. => (4, 0),
        _ => (0, 0),
    };
    let [title, devices, gap, messages, figures, news, join] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(2),
        Constraint::Length(3),
        Constraint::Length(news),
        Constraint::Length(join),
    ])
    .areas(area);
    render_title(frame, title, scene);
    frame.render_widget(Paragraph::new(devices_line(scene)), devices);
    frame.render_widget(Paragraph::new(rule(gap.width, "messages")), gap);
    render_messages(frame, messages, scene);
    frame.render_widget(Paragraph::new(figures_lines(scene, figures.width)), figures);
    frame.render_widget(Paragraph::new(news_lines(scene, news)), news);
    frame.render_widget(Paragraph::new(join_lines(scene, join.width)), join);
}

fn render_title(frame: &mut Frame, area: Rect, scene: &Scene) {
    let seconds = scene.now.saturating_duration_since(scene.model.began).as_secs();
    let left = format!(" shoprelay demo  {}", scene.banner.url);
    let right = format!("{:02}:{:02}  q quits ", seconds / 60, seconds % 60);
    let gap = usize::from(area.width).saturating_sub(left.chars().count() + right.chars().count());
    let style = Style::new().fg(Color::Black).bg(Color::Cyan);
    frame.render_widget(Paragraph::new(format!("{left}{}{right}", " ".repeat(gap))).style(style), area);
}

fn devices_line<'a>(scene: &Scene) -> Line<'a> {
    let mut spans = vec![Span::raw(" ")];
    for (name, main) in MAINS.iter().zip(&scene.model.mains) {
        match main.off_since {
            _ if main.is_replaced => spans.push(Span::styled(format!("✗ {name} replaced  "), BAD)),
            None if main.is_online => spans.extend([Span::styled("● ", GOOD), Span::raw(format!("{name}  "))]),
            None => spans.push(Span::styled(format!("○ {name}  "), DIM)),
            Some(since) => {
                let away = scene.now.saturating_duration_since(since);
                let text = format!("○ {name} cut off {:.1}s  ", away.as_secs_f64());
                spans.push(Span::styled(text, BAD.add_modifier(Modifier::BOLD)));
            }
        }
    }
    spans.push(Span::raw(" "));
    for (name, is_online) in HANDHELDS.iter().zip(&scene.model.handhelds_online) {
        let dot = if *is_online { Span::styled("● ", GOOD) } else { Span::styled("○ ", DIM) };
        spans.extend([dot, Span::raw(format!("{name}  "))]);
    }
    Line::from(spans)
}

fn render_messages(frame: &mut Frame, area: Rect, scene: &Scene) {
    // Where it is narrow, who sent a message is left out.
    let stored = if area.width < SENDER_FROM { 6 } else { 8 };
    // The other columns, a space between each two, and one at each side.
    let order = area.width.saturating_sub(5 + 5 + stored + 7 + 7 + 7 + 9 + 7 + 2).min(ORDER_MAX);
    let widths = [5, 5, order, stored, 7, 7, 7, 9].map(Constraint::Length);
    let header = ["time", "table", "order", "stored", "till-1", "till-2", "kitchen", "dealt by"];
    let rows_max = usize::from(area.height.saturating_sub(1));
    let rows = scene.model.rows.values().rev().take(rows_max).map(|row| message_row(row, scene, order));
    let table = Table::new(rows, widths).header(TableRow::new(header).style(DIM)).column_spacing(1);
    let inner = Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
    frame.render_widget(table, inner);
}

fn message_row<'a>(row: &'a Row, scene: &Scene, order: u16) -> TableRow<'a> {
    let seconds = row.at.saturating_duration_since(scene.model.began).as_secs();
    let time = Cell::from(format!("{:02}:{:02}", seconds / 60, seconds % 60)).style(DIM);
    let table = Cell::from(format!("{:>5}", fit(&row.content.table, 5)));
    let order = Cell::from(fit(&row.content.text, order));
    let stored = Line::from(vec![Span::styled("✓ ", GOOD), Span::raw(fit(&row.content.from, 6))]);
    let got = row.got.iter().zip(&scene.model.mains).map(|(got, main)| match got {
        Some(got) => {
            let text = got.after.map_or_else(|| "✓".into(), |after| format!("✓ {}", short(after)));
            Cell::from(fit(&text, 7)).style(if got.is_live || got.after.is_none() { GOOD } else { WAITS })
        }
        None if !row.is_ours => Cell::from("·").style(DIM),
        None if main.is_online => Cell::from("…"),
        None => Cell::from("waits").style(WAITS.add_modifier(Modifier::BOLD)),
    });
    let dealt = match &row.dealt_by {
        Some(by) => Line::from(vec![Span::styled("✓ ", GOOD), Span::raw(fit(by, 7))]),
        None => Line::from("…").style(DIM),
    };
    let cells = [time, table, order, Cell::from(stored)].into_iter().chain(got).chain([Cell::from(dealt)]);
    TableRow::new(cells)
}

fn figures_lines<'a>(scene: &Scene, width: u16) -> Vec<Line<'a>> {
    let summary = scene.model.summary(scene.now, false);
    let figure = |name: &str, value: String, style: Style| {
        [Span::styled(format!(" {name} "), DIM), Span::styled(value, style), Span::raw(" ")]
    };
    let plain = Style::new().bold();
    let mut first = Vec::from(figure("stored", summary.stored.to_string(), plain));
    for (name, count) in &summary.delivered {
        first.extend(figure(name, count.to_string(), plain));
    }
    first.extend(figure("dealt", summary.dealt.to_string(), plain));
    let verdict = |count: u64| if count == 0 { GOOD.bold() } else { BAD.bold() };
    let mut second = Vec::from(figure("missed", summary.missed.to_string(), verdict(summary.missed as u64)));
    second.extend(figure("twice", summary.twice.to_string(), verdict(summary.twice)));
    second.extend(figure("cut-offs", summary.cut_offs.to_string(), plain));
    second.extend(figure("caught up", summary.caught_up.to_string(), plain));
    second.extend(figure("p50", time_or_dash(summary.latency_p50), plain));
    second.extend(figure("p99", time_or_dash(summary.latency_p99), plain));
    vec![rule(width, "so far"), Line::from(first), Line::from(second)]
}

fn news_lines<'a>(scene: &Scene, area: Rect) -> Vec<Line<'a>> {
    let lines = usize::from(area.height.saturating_sub(1));
    let newest = scene.news.len().saturating_sub(lines);
    let line = |item: &Item| {
        let seconds = item.at.as_secs();
        let style = if item.news.is_bad() { BAD } else { Style::new() };
        Line::from(vec![
            Span::styled(format!(" {:02}:{:02} ", seconds / 60, seconds % 60), DIM),
            Span::styled(fit(&item.news.brief(), area.width.saturating_sub(8)), style),
        ])
    };
    std::iter::once(rule(area.width, "what happened")).chain(scene.news.iter().skip(newest).map(line)).collect()
}

fn join_lines<'a>(scene: &Scene, width: u16) -> Vec<Line<'a>> {
    let line = |text: String| Line::from(format!(" {}", fit(&text, width.saturating_sub(1))));
    let heading = match &scene.banner.metrics {
        Some(metrics) => format!("join in; metrics are at {metrics}"),
        None => "join in".to_owned(),
    };
    vec![
        rule(width, &heading),
        line(scene.banner.command()),
        line(scene.banner.login()),
        line(scene.banner.notify().to_owned()),
    ]
}

fn rule<'a>(width: u16, name: &str) -> Line<'a> {
    let rest = usize::from(width).saturating_sub(name.chars().count() + 4);
    Line::from(vec![
        Span::styled("─ ", DIM),
        Span::styled(name.to_owned(), HEAD),
        Span::styled(format!(" {}", "─".repeat(rest + 1)), DIM),
    ])
}

/// The text in at most so many columns, with a sign where something was left out. Counts characters,
/// which is right for what the demo itself says; the table cuts off what a guest's wide ones take more.
fn fit(text: &str, columns: u16) -> String {
    let columns = usize::from(columns);
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    text.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
}
