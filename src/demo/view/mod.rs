//! How the demo is shown: a screen on a terminal, plain lines elsewhere.
//!
//! Owns standard output, and the terminal's state for as long as it lives: dropping the view restores
//! it. Decides nothing; what is shown is the model's. Called by the parent.

mod screen;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::demo::devices::SHOP;
use crate::demo::model::Model;
use crate::demo::news::Item;

/// Notable news that are kept for the screen.
const NEWS_KEPT: usize = 50;

/// How to get in, for whoever wants to.
#[derive(Debug, Clone)]
pub struct Banner {
    /// Where devices connect.
    pub url: String,
    pub metrics: Option<String>,
}

impl Banner {
    pub fn new(listen: SocketAddr, metrics: Option<SocketAddr>) -> Banner {
        Banner { url: format!("ws://{listen}/ws"), metrics: metrics.map(|address| format!("http://{address}/metrics")) }
    }

    /// The command that connects.
    pub fn command(&self) -> String {
        format!("wscat -c {} -s shoprelay.v1.json", self.url)
    }

    /// What to paste then. Whoever types by hand cannot acknowledge in time; their client's Pongs do.
    pub fn login(&self) -> String {
        format!(r#"{{"op":"login","shop":"{SHOP}","device":"me","role":"main","ack":"pong"}}"#)
    }

    /// What to paste after that.
    pub fn notify(&self) -> &'static str {
        r#"{"op":"notify","to":"mains","type":"order","table":"7","data":"2 ramen"}"#
    }
}

impl fmt::Display for Banner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "shoprelay demo: two tills, a kitchen screen and three handhelds on a relay of their own")?;
        writeln!(f, "  devices  {}", self.url)?;
        if let Some(metrics) = &self.metrics {
            writeln!(f, "  metrics  {metrics}")?;
        }
        writeln!(f, "  join in  {}", self.command())?;
        writeln!(f, "           {}", self.login())?;
        writeln!(f, "           {}", self.notify())
    }
}

/// Where the demo is shown.
pub enum View {
    Plain,
    Screen(Screen),
}

/// A terminal in raw mode, on its alternate screen.
pub struct Screen {
    terminal: DefaultTerminal,
    banner: Banner,
    news: VecDeque<Item>,
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where it cannot be restored there is nothing to say it on either.
        let _ = ratatui::try_restore();
    }
}

impl View {
    /// Prints how to join in, and takes the terminal if there is one.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn open(banner: Banner) -> io::Result<View> {
        print(&banner.to_string())?;
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if is_dumb || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            return Ok(View::Plain);
        }
        let terminal = ratatui::try_init()?;
        Ok(View::Screen(Screen { terminal, banner, news: VecDeque::new() }))
    }

    /// Takes note of news: prints them, or keeps them for the next drawing.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn tell(&mut self, items: Vec<Item>) -> io::Result<()> {
        match self {
            View::Plain => items.iter().try_for_each(|item| print(&format!("{item}\n"))),
            View::Screen(screen) => {
                screen.news.extend(items.into_iter().filter(|item| item.news.is_notable()));
                while screen.news.len() > NEWS_KEPT {
                    screen.news.pop_front();
                }
                Ok(())
            }
        }
    }

    /// Draws the screen, if there is one; says whether the user wants to leave.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn draw(&mut self, model: &Model, now: Instant) -> io::Result<bool> {
        let View::Screen(Screen { terminal, banner, news }) = self else { return Ok(false) };
        terminal.draw(|frame| screen::render(frame, &screen::Scene { model, banner, news, now }))?;
        // Nothing but a key that is there already is read, so this never waits.
        while event::poll(Duration::ZERO)? {
            if is_farewell(&event::read()?) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn is_farewell(event: &Event) -> bool {
    match event {
        Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => true,
            // In raw mode the terminal makes no signal of it.
            KeyCode::Char('c' | 'd') => key.modifiers.contains(KeyModifiers::CONTROL),
            _ => false,
        },
        _ => false,
    }
}

/// Writes to standard output; a pipe that was closed is an error and no panic.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
