//! Where settings come from: flags over the environment over the file, and which of them won.
//!
//! Owns the order of the sources and the reading of the file. What a value means, and whether it can
//! be taken, is the parent's.

use std::collections::BTreeMap;

use super::values::{Values, default_of, printable};
use super::{Config, ConfigError, KeyFile, Kind, SETTINGS};

/// A value with where it came from.
struct Given {
    value: String,
    source_name: String,
}

/// A setting as it is in force, to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    pub key: &'static str,
    /// Without passwords.
    pub value: String,
    /// The flag, the variable or the place in the file; `default` where nobody gave it.
    pub source_name: String,
}

/// Settings as they were given, by key, the strongest source first come.
pub struct Layers {
    given: BTreeMap<&'static str, Given>,
    /// What is wrong with the settings file.
    file_problems: Vec<ConfigError>,
    /// Variables that begin with `SHOPRELAY_` and name no setting; worth a warning.
    pub unknown_variables: Vec<String>,
}

impl Layers {
    /// Lays flags over the environment over the settings file that one of them names. What is wrong
    /// with the file is told by [`Layers::check`], with everything else.
    pub fn read(
        flags: impl IntoIterator<Item = (&'static str, String)>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Layers {
        let mut layers = Layers { given: BTreeMap::new(), file_problems: Vec::new(), unknown_variables: Vec::new() };
        for (key, value) in flags {
            let source_name = format!("--{}", key.replace('_', "-"));
            layers.given.insert(key, Given { value, source_name });
        }
        for (variable, value) in environment.into_iter().filter(|(variable, _)| variable.starts_with("SHOPRELAY_")) {
            match SETTINGS.iter().find(|setting| setting.variable() == variable) {
                Some(setting) => layers.add(setting.key, value, variable),
                // A build that can plant faults knows this one.
                None if cfg!(debug_assertions) && variable == crate::planted::VARIABLE => {}
                None => layers.unknown_variables.push(variable),
            }
        }
        layers.unknown_variables.sort();
        if let Some(path) = layers.given.get("config").map(|given| given.value.clone()).filter(|path| !path.is_empty())
            && let Err(problem) = layers.read_file(&path)
        {
            layers.file_problems.push(problem);
        }
        layers
    }

    /// The settings of a file of this path that says this, and of nothing else.
    #[cfg(any(test, fuzzing))]
    pub(super) fn of_file(path: &str, text: &str) -> Layers {
        let mut layers = Layers { given: BTreeMap::new(), file_problems: Vec::new(), unknown_variables: Vec::new() };
        if let Err(problem) = layers.read_text(path, text) {
            layers.file_problems.push(problem);
        }
        layers
    }

    fn add(&mut self, key: &'static str, value: String, source_name: String) {
        self.given.entry(key).or_insert(Given { value, source_name });
    }

    fn read_file(&mut self, path: &str) -> Result<(), ConfigError> {
        let unreadable = |problem: String| ConfigError::File { path: path.to_owned(), problem };
        let text = std::fs::read_to_string(path).map_err(|cause| unreadable(cause.to_string()))?;
        self.read_text(path, &text)
    }

    /// Takes what the settings file of this path says.
    fn read_text(&mut self, path: &str, text: &str) -> Result<(), ConfigError> {
        let unreadable = |problem: String| ConfigError::File { path: path.to_owned(), problem };
        let table: toml::Table = text.parse().map_err(|cause: toml::de::Error| {
            // The error's own text repeats the line, which may hold a password.
            let line = cause.span().and_then(|span| text.get(..span.start)).map_or(1, |before| before.lines().count());
            unreadable(format!("line {}: {}", line.max(1), cause.message()))
        })?;
        for (name, value) in flatten(table) {
            // `legacy = true` and a table `[legacy]` cannot both stand in a file.
            let name = if name == "legacy.enabled" { "legacy".to_owned() } else { name };
            let known = SETTINGS.iter().find(|setting| setting.key == name && name != "config");
            let Some(setting) = known else {
                self.file_problems.push(ConfigError::UnknownKey { path: path.to_owned(), key: name });
                continue;
            };
            let value = match value {
                toml::Value::String(text) => text,
                toml::Value::Array(values) if setting.kind == Kind::List => match joined(&values) {
                    Some(text) => text,
                    None => {
                        let problem = unreadable(format!("{name} must be a list of texts"));
                        self.file_problems.push(problem);
                        continue;
                    }
                },
                toml::Value::Integer(_) | toml::Value::Boolean(_) | toml::Value::Float(_) => value.to_string(),
                _ => {
                    let problem = unreadable(format!("{name} must be a text, a number, true or false"));
                    self.file_problems.push(problem);
                    continue;
                }
            };
            self.add(setting.key, value, format!("{path}: {name}"));
        }
        Ok(())
    }

    /// Every setting, in the order of [`SETTINGS`].
    pub fn effective(&self) -> Vec<Effective> {
        let effective = SETTINGS.iter().map(|setting| {
            let (value, source_name) = self.value(setting.key);
            Effective { key: setting.key, value: printable(setting.key, value), source_name: source_name.to_owned() }
        });
        effective.collect()
    }

    /// Parses and checks every value.
    ///
    /// # Errors
    /// Everything that cannot be taken, at least one.
    pub fn check(&self) -> Result<Config, Vec<ConfigError>> {
        let mut problems = Vec::new();
        let config = Values { layers: self, problems: &mut problems }.parse();
        match config {
            Some(config) if problems.is_empty() && self.file_problems.is_empty() => Ok(config),
            _ => Err(self.file_problems.iter().cloned().chain(problems).collect()),
        }
    }

    /// The files with secrets for device tokens, which signing a token needs of all the settings.
    ///
    /// # Errors
    /// Everything that is wrong with that setting or with the settings file, at least one.
    pub fn token_secrets(&self) -> Result<Vec<KeyFile>, Vec<ConfigError>> {
        let mut problems = Vec::new();
        let secrets = Values { layers: self, problems: &mut problems }.token_secrets();
        match secrets {
            Some(secrets) if problems.is_empty() && self.file_problems.is_empty() => Ok(secrets),
            _ => Err(self.file_problems.iter().cloned().chain(problems).collect()),
        }
    }

    /// The value in force, and where it came from.
    pub(super) fn value(&self, key: &'static str) -> (&str, &str) {
        match self.given.get(key) {
            Some(given) => (&given.value, &given.source_name),
            None => (default_of(key), "default"),
        }
    }
}

/// A list as a flag or a variable would give it.
fn joined(values: &[toml::Value]) -> Option<String> {
    let values: Option<Vec<&str>> = values.iter().map(toml::Value::as_str).collect();
    values.map(|values| values.join(","))
}

fn flatten(table: toml::Table) -> Vec<(String, toml::Value)> {
    let mut flat = Vec::new();
    for (name, value) in table {
        match value {
            toml::Value::Table(inner) => {
                flat.extend(inner.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)))
            }
            value => flat.push((name, value)),
        }
    }
    flat
}
