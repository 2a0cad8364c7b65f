//! The API's keys: a file of them, and which one was presented.
//!
//! Owns the form of the keys file and what a key lets its holder do. Keeps digests, never a key, and no
//! message of it repeats one. Used by the API's door.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use subtle::ConstantTimeEq as _;
use tracing::warn;

use super::read_file;
use crate::ids::{IdError, NAME_BYTES_MAX, Name, ShopId};

/// Keys of fewer characters are warned of.
const KEY_CHARS_MIN: usize = 16;
/// Largest keys file, in bytes: some thousand keys.
const FILE_BYTES_MAX: usize = 1 << 20;
/// What a key may have, as its fields in the file.
const FIELDS: [&str; 5] = ["name", "key", "sha256", "shops", "scopes"];

/// SHA-256 of a key.
type Digest = [u8; SHA256_OUTPUT_LEN];

/// A kind of request. None includes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Read,
    Write,
    Operate,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Scope; 3] = [Scope::Read, Scope::Write, Scope::Operate];

    /// `read`, `write` or `operate`, as in the keys file.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Write => "write",
            Scope::Operate => "operate",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Scope::Read => 1,
            Scope::Write => 2,
            Scope::Operate => 4,
        }
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Whether the scope is among them.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    fn with(self, scope: Scope) -> Scopes {
        Scopes(self.0 | scope.bit())
    }
}

/// The shops a key is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyShops {
    All,
    Only(BTreeSet<ShopId>),
}

/// What is known of a key; not the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Says in messages and logs who it was.
    pub name: Name,
    pub shops: KeyShops,
    pub scopes: Scopes,
}

impl ApiKey {
    /// Who uses the API where there is no keys file: everything is allowed.
    pub fn local() -> ApiKey {
        let scopes = Scope::ALL.into_iter().fold(Scopes::default(), Scopes::with);
        ApiKey { name: Name::constant("local"), shops: KeyShops::All, scopes }
    }

    /// Whether it is for such requests.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(scope)
    }

    /// Whether it is for this shop.
    pub fn may_enter(&self, shop: &ShopId) -> bool {
        match &self.shops {
            KeyShops::All => true,
            KeyShops::Only(shops) => shops.contains(shop),
        }
    }

    /// Whether it is for every shop there may be.
    pub fn has_all_shops(&self) -> bool {
        self.shops == KeyShops::All
    }
}

/// Why a keys file cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("the API keys file {path} cannot be read: {problem}")]
    File { path: PathBuf, problem: String },
    #[error("the API keys file {path}, {key}: {problem}")]
    Key {
        path: PathBuf,
        /// By its name, or by its place in the file.
        key: String,
        problem: KeyProblem,
    },
}

/// What is wrong with one key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    #[error("there is no field {field}; a key has name, key or sha256, shops and scopes")]
    UnknownField { field: String },
    #[error("{field} is missing or not {wanted}")]
    Field { field: &'static str, wanted: &'static str },
    #[error("the {field} {cause}")]
    Name { field: &'static str, cause: IdError },
    #[error("another key before it has this name; give it one of its own")]
    SameName,
    #[error("give either key or sha256, not both and not neither")]
    KeyOrDigest,
    #[error("the key is empty; `openssl rand -hex 32` makes one")]
    Empty,
    #[error("the key has a character that no header can carry; take visible ASCII without spaces")]
    Characters,
    #[error("sha256 is not 64 hexadecimal digits; `printf %s \"$KEY\" | sha256sum` prints them")]
    Digest,
    #[error("the key is the same as that of {other}; make one of its own")]
    SameKey { other: Name },
    #[error("shops is empty; list shops, or give [\"*\"] for all")]
    NoShop,
    #[error("shops has \"*\" beside others; \"*\" stands alone for all")]
    AllAndOthers,
    #[error("scopes is empty; list some of read, write and operate")]
    NoScope,
    #[error("there is no scope {scope}; the scopes are read, write and operate")]
    UnknownScope { scope: String },
    #[error("the scope {} is given twice", .scope.as_str())]
    SameScope { scope: Scope },
}

/// The keys of a file.
#[derive(Default)]
pub struct ApiKeys {
    keys: Vec<(Digest, Arc<ApiKey>)>,
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(_, key)| key)).finish()
    }
}

impl ApiKeys {
    /// Reads a keys file.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn read(path: &Path) -> Result<ApiKeys, KeysError> {
        match read_file(path, FILE_BYTES_MAX) {
            Ok(bytes) => ApiKeys::of_bytes(path, bytes),
            Err(cause) => Err(KeysError::File { path: path.to_owned(), problem: cause.to_string() }),
        }
    }

    /// What the keys file of this path holds.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub(super) fn of_bytes(path: &Path, bytes: Vec<u8>) -> Result<ApiKeys, KeysError> {
        let unreadable = |problem: String| KeysError::File { path: path.to_owned(), problem };
        let text = String::from_utf8(bytes).map_err(|_| unreadable("it is no UTF-8 text".into()))?;
        let mut table: toml::Table = text.parse().map_err(|cause: toml::de::Error| {
            // The error's own text repeats the line, which may hold a key.
            let line = cause.span().and_then(|span| text.get(..span.start)).map_or(1, |before| before.lines().count());
            unreadable(format!("line {} is no TOML; texts stand in quotation marks", line.max(1)))
        })?;
        let entries = match table.remove("keys") {
            Some(toml::Value::Array(entries)) if !entries.is_empty() => entries,
            _ => return Err(unreadable("it has no [[keys]], so nobody could use the API".into())),
        };
        if let Some(unknown) = table.keys().next() {
            return Err(unreadable(format!("it has an unknown {}; it takes [[keys]] only", shown(unknown))));
        }
        let mut keys = ApiKeys::default();
        let (mut names, mut digests) = (BTreeSet::new(), HashMap::new());
        for (index, entry) in entries.iter().enumerate() {
            let name = entry.get("name").and_then(toml::Value::as_str).filter(|name| name.len() <= NAME_BYTES_MAX);
            let key = name.map_or_else(|| format!("key number {}", index + 1), |name| format!("key {name:?}"));
            let wrong = |problem| KeysError::Key { path: path.to_owned(), key, problem };
            let (digest, key) = match parse(entry) {
                Ok((_, key)) if !names.insert(key.name.clone()) => return Err(wrong(KeyProblem::SameName)),
                Ok(parsed) => parsed,
                Err(problem) => return Err(wrong(problem)),
            };
            if let Some(other) = digests.insert(digest, key.name.clone()) {
                return Err(wrong(KeyProblem::SameKey { other }));
            }
            keys.keys.push((digest, Arc::new(key)));
        }
        Ok(keys)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key that this text is. Every key is compared, each in constant time, so how long it takes
    /// tells nothing.
    pub fn find(&self, presented: &str) -> Option<Arc<ApiKey>> {
        let presented = sha256(presented);
        let mut found = None;
        for (digest, key) in &self.keys {
            if bool::from(digest.ct_eq(&presented)) {
                found = Some(key);
            }
        }
        found.cloned()
    }
}

fn sha256(key: &str) -> Digest {
    let mut bytes = Digest::default();
    bytes.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
    bytes
}

/// A text of the file in a message, unless it is long enough to be a key in the wrong place.
fn shown(text: &str) -> String {
    match text.chars().count() {
        chars if chars < KEY_CHARS_MIN => format!("{text:?}"),
        chars => format!("(a text of {chars} characters)"),
    }
}

/// One entry of the file.
fn parse(entry: &toml::Value) -> Result<(Digest, ApiKey), KeyProblem> {
    let Some(entry) = entry.as_table() else {
        return Err(KeyProblem::Field { field: "keys", wanted: "a list of tables, each headed [[keys]]" });
    };
    if let Some(unknown) = entry.keys().find(|field| !FIELDS.contains(&field.as_str())) {
        return Err(KeyProblem::UnknownField { field: shown(unknown) });
    }
    let name = text(entry, "name")?.ok_or(KeyProblem::Field { field: "name", wanted: "a text" })?;
    let name: Name = name.parse().map_err(|cause| KeyProblem::Name { field: "name", cause })?;
    let digest = match (text(entry, "key")?, text(entry, "sha256")?) {
        (Some(key), None) => digest_of(&name, key)?,
        (None, Some(hex)) => from_hex(hex).ok_or(KeyProblem::Digest)?,
        _ => return Err(KeyProblem::KeyOrDigest),
    };
    let shops = shops(&texts(entry, "shops")?)?;
    let scopes = scopes(&texts(entry, "scopes")?)?;
    Ok((digest, ApiKey { name, shops, scopes }))
}

fn text<'a>(entry: &'a toml::Table, field: &'static str) -> Result<Option<&'a str>, KeyProblem> {
    let value = entry.get(field).map(|value| value.as_str().ok_or(KeyProblem::Field { field, wanted: "a text" }));
    value.transpose()
}

fn texts<'a>(entry: &'a toml::Table, field: &'static str) -> Result<Vec<&'a str>, KeyProblem> {
    let values = entry.get(field).and_then(toml::Value::as_array);
    let values = values.and_then(|values| values.iter().map(toml::Value::as_str).collect());
    values.ok_or(KeyProblem::Field { field, wanted: "a list of texts" })
}

fn digest_of(name: &Name, key: &str) -> Result<Digest, KeyProblem> {
    if !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(KeyProblem::Characters);
    }
    if key.is_empty() {
        return Err(KeyProblem::Empty);
    }
    if key.len() < KEY_CHARS_MIN {
        warn!(key = %name, "the API key of this name is short enough to be guessed; `openssl rand -hex 32` makes a good one");
    }
    Ok(sha256(key))
}

fn from_hex(text: &str) -> Option<Digest> {
    if text.len() != 2 * SHA256_OUTPUT_LEN || !text.is_ascii() {
        return None;
    }
    let mut bytes = Digest::default();
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let mut digits = digits.iter().map(|digit| char::from(*digit).to_digit(16));
        *byte = digits.try_fold(0, |sum, digit| Some(sum * 16 + digit? as u8))?;
    }
    Some(bytes)
}

fn shops(given: &[&str]) -> Result<KeyShops, KeyProblem> {
    match given {
        [] => Err(KeyProblem::NoShop),
        ["*"] => Ok(KeyShops::All),
        several if several.contains(&"*") => Err(KeyProblem::AllAndOthers),
        several => {
            let shops = several.iter().map(|shop| shop.parse());
            let shops = shops.collect::<Result<_, _>>();
            shops.map(KeyShops::Only).map_err(|cause| KeyProblem::Name { field: "name of a shop", cause })
        }
    }
}

fn scopes(given: &[&str]) -> Result<Scopes, KeyProblem> {
    if given.is_empty() {
        return Err(KeyProblem::NoScope);
    }
    given.iter().try_fold(Scopes::default(), |scopes, name| {
        let scope = Scope::ALL.into_iter().find(|scope| scope.as_str() == *name);
        match scope.ok_or_else(|| KeyProblem::UnknownScope { scope: shown(name) })? {
            scope if scopes.contains(scope) => Err(KeyProblem::SameScope { scope }),
            scope => Ok(scopes.with(scope)),
        }
    })
}

#[cfg(test)]
mod tests;
