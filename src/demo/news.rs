//! What happened, in words: one line for each piece of news.
//!
//! Pure. Made by the model, shown by the views.

use std::fmt;
use std::time::Duration;

use crate::demo::report::Content;
use crate::ids::MessageId;

/// A piece of news, with its time since the demo began.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub at: Duration,
    pub news: News,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    Joined { who: &'static str },
    Stored { id: MessageId, content: Content },
    Delivered { id: MessageId, main: &'static str, after: Option<Duration> },
    Dealt { id: MessageId, by: String, status: String },
    Conflict { id: MessageId, main: &'static str, by: String },
    CutOff { main: &'static str },
    Lost { who: &'static str, why: String },
    Back { main: &'static str, after: Duration, waiting: usize },
    CaughtUp { main: &'static str, waiting: usize, took: Duration },
    Replaced { who: &'static str },
    Twice { id: MessageId, main: &'static str },
    Refused { who: &'static str, code: String, message: String },
}

impl News {
    /// Whether it is more than the way of a single message, which the table shows anyway.
    pub fn is_notable(&self) -> bool {
        !matches!(self, News::Stored { .. } | News::Delivered { .. } | News::Dealt { .. } | News::Joined { .. })
    }

    /// Whether it is what must not happen.
    pub fn is_bad(&self) -> bool {
        matches!(self, News::Twice { .. } | News::Lost { .. } | News::Refused { .. } | News::Replaced { .. })
    }

    /// The same without the message's id, for where the message itself is in sight.
    pub fn brief(&self) -> String {
        let text = self.to_string();
        match self {
            News::Conflict { .. } | News::Twice { .. } => {
                text.split_once("  ").map_or(text.clone(), |(_, rest)| rest.to_owned())
            }
            _ => text,
        }
    }

    /// The word a line begins with.
    fn verb(&self) -> &'static str {
        match self {
            News::Joined { .. } => "joined",
            News::Stored { .. } => "stored",
            News::Delivered { .. } => "delivered",
            News::Dealt { .. } => "dealt with",
            News::Conflict { .. } => "conflict",
            News::CutOff { .. } => "cut off",
            News::Lost { .. } => "lost",
            News::Back { .. } => "back",
            News::CaughtUp { .. } => "caught up",
            News::Replaced { .. } => "replaced",
            News::Twice { .. } => "twice",
            News::Refused { .. } => "refused",
        }
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            News::Joined { who } => write!(f, "{who} is logged in"),
            News::Stored { id, content } => {
                write!(f, "{id}  table {:<2}  {}  (from {})", content.table, content.text, content.from)
            }
            News::Delivered { id, main, after: None } => write!(f, "{id}  to {main}"),
            News::Delivered { id, main, after: Some(after) } => write!(f, "{id}  to {main} after {}", short(*after)),
            News::Dealt { id, by, status } => write!(f, "{id}  by {by}: {status}"),
            News::Conflict { id, main, by } => write!(f, "{id}  {main} wanted it too, {by} was first"),
            News::CutOff { main } => write!(f, "{main} is cut off; messages for it wait"),
            News::Lost { who, why } => write!(f, "{who} is away: {why}"),
            News::Back { main, after, waiting } => {
                write!(f, "{main} is back after {}; {waiting} waiting for it", short(*after))
            }
            News::CaughtUp { main, waiting, took } => {
                write!(f, "{main} got all {waiting} in {}; nothing was missed", short(*took))
            }
            News::Replaced { who } => write!(f, "somebody else logged in as {who}, which is not counted any more"),
            News::Twice { id, main } => write!(f, "{id}  {main} was sent it twice on one connection"),
            News::Refused { who, code, message } => write!(f, "{who}: {code}: {message}"),
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.at.as_millis();
        let (minutes, seconds, millis) = (millis / 60_000, millis / 1000 % 60, millis % 1000);
        write!(f, "{minutes:02}:{seconds:02}.{millis:03}  {:<10}  {}", self.news.verb(), self.news)
    }
}

/// A time in at most six characters.
pub fn short(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..1_000 => format!("{micros}µs"),
        micros @ 1_000..10_000 => format!("{}.{}ms", micros / 1_000, micros / 100 % 10),
        micros @ 10_000..1_000_000 => format!("{}ms", micros / 1_000),
        micros => format!("{}.{}s", micros / 1_000_000, micros / 100_000 % 10),
    }
}
