//! `shoprelay check`: the settings as a node would take them, and what is wrong with them.
//!
//! Owns how they are laid out and the questions that only a human needs answered beforehand. Never
//! opens a socket and never asks the store. Called by `main`.

use std::fmt;
use std::net::SocketAddr;

use crate::auth::Gate;
use crate::config::{Auth, Config, Effective, Layers};

/// What there is to say about the settings; its `Display` form is the whole of it.
#[derive(Debug)]
pub struct Report {
    effective: Vec<Effective>,
    warnings: Vec<String>,
    problems: Vec<String>,
}

impl Report {
    /// Looks at the settings as they were given.
    pub fn of(layers: &Layers) -> Report {
        let unknown =
            layers.unknown_variables.iter().map(|variable| format!("{variable} names no setting and is ignored"));
        let mut warnings: Vec<String> = unknown.collect();
        let problems = match layers.check() {
            Ok(config) => {
                if let (Auth::Mtls, Some(listen)) = (&config.auth, config.listen) {
                    warnings.push(format!("auth is mtls, so nobody can log in at listen, {listen}; none closes it"));
                }
                found_by_looking(&config)
            }
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        };
        Report { effective: layers.effective(), warnings, problems }
    }

    /// Whether a node would start with these settings, as far as they alone can tell.
    pub fn is_fine(&self) -> bool {
        self.problems.is_empty()
    }
}

/// What the values say only together, or only beside the files that they name.
fn found_by_looking(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(path) = &config.store_ca
        && let Err(cause) = std::fs::File::open(path)
    {
        problems.push(format!("store_ca: {} cannot be read: {cause}", path.display()));
    }
    problems.extend(Gate::problems(config).iter().map(ToString::to_string));
    let listeners: [(&str, Option<SocketAddr>); 4] = [
        ("listen", config.listen),
        ("tls_listen", config.tls.as_ref().map(|tls| tls.listen)),
        ("api_listen", config.api_listen),
        ("metrics_listen", config.metrics_listen),
    ];
    for (index, (name, address)) in listeners.iter().enumerate() {
        for (other, taken) in listeners.iter().take(index) {
            if let (Some(address), Some(taken)) = (address, taken)
                && address == taken
                && address.port() != 0
            {
                problems.push(format!("{other} and {name} are both {address}; give one of them another port"));
            }
        }
    }
    problems
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: fn(&Effective) -> &str| {
            self.effective.iter().map(|setting| column(setting).chars().count()).max().unwrap_or(0)
        };
        let (keys, values) = (width(|setting| setting.key), width(shown).min(48));
        writeln!(f, "{:keys$}  {:values$}  from", "setting", "value")?;
        for setting in &self.effective {
            writeln!(f, "{:keys$}  {:values$}  {}", setting.key, shown(setting), setting.source_name)?;
        }
        writeln!(f)?;
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        for problem in &self.problems {
            writeln!(f, "wrong: {problem}")?;
        }
        match self.problems.len() {
            0 => writeln!(f, "nothing is wrong with these settings"),
            1 => writeln!(f, "1 problem; the relay would not start"),
            many => writeln!(f, "{many} problems; the relay would not start"),
        }
    }
}

fn shown(setting: &Effective) -> &str {
    if setting.value.is_empty() { "-" } else { &setting.value }
}
