//! What a keys file may say, and that no message repeats a key.

use super::*;

const KEY: &str = "sk-0123456789abcdef";

fn read(text: &str) -> Result<ApiKeys, KeysError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    ApiKeys::read(file.path())
}

/// What is said of a file; its path is left out.
fn refusal(text: &str) -> String {
    let error = read(text).unwrap_err().to_string();
    assert!(!error.contains(KEY) && !error.contains("0123456789"), "{error}");
    let (_, problem) = error.split_once("the API keys file ").unwrap();
    problem.split_once([',', ' ']).unwrap().1.trim().to_owned()
}

/// A key with these lines beside its name, where a line of its own replaces the usual one.
fn with(lines: &[&str]) -> String {
    let usual = [format!("key = \"{KEY}\""), "shops = [\"*\"]".into(), "scopes = [\"read\"]".into()];
    let field = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let kept = usual.iter().filter(|line| !lines.iter().any(|given| field(given) == field(line)));
    let text: Vec<String> = kept.cloned().chain(lines.iter().map(|line| line.to_string())).collect();
    format!("[[keys]]\nname = \"back office\"\n{}\n", text.join("\n"))
}

#[test]
fn a_key_is_found_by_its_text_or_its_digest_and_says_what_it_may() {
    let digest: String = sha256("fedcba9876543210").iter().map(|byte| format!("{byte:02X}")).collect();
    let keys = read(&format!(
        "[[keys]]\nname = \"back\"\nkey = \"{KEY}\"\nshops = [\"*\"]\nscopes = [\"read\", \"operate\"]\n\
         [[keys]]\nname = \"s1\"\nsha256 = \"{digest}\"\nshops = [\"s1\", \"s2\"]\nscopes = [\"write\"]\n"
    ))
    .unwrap();
    assert_eq!(keys.len(), 2);
    let back = keys.find(KEY).unwrap();
    assert!(back.may(Scope::Read) && back.may(Scope::Operate) && !back.may(Scope::Write));
    assert!(back.has_all_shops() && back.may_enter(&"s9".parse().unwrap()));
    let one = keys.find("fedcba9876543210").unwrap();
    assert_eq!(one.name.as_str(), "s1");
    assert!(one.may(Scope::Write) && !one.may(Scope::Read) && !one.may(Scope::Operate));
    assert!(!one.has_all_shops());
    assert!(one.may_enter(&"s2".parse().unwrap()) && !one.may_enter(&"s3".parse().unwrap()));
    for other in ["", "sk-0123456789abcde", "sk-0123456789abcdef ", &digest] {
        assert!(keys.find(other).is_none(), "{other:?}");
    }
    let shown = format!("{keys:?} {back:?}");
    assert!(!shown.contains(KEY) && !shown.contains(&format!("{:?}", sha256(KEY))), "{shown}");
}

#[test]
fn a_short_key_is_taken() {
    assert!(read(&with(&["key = \"k\""])).unwrap().find("k").is_some());
}

#[test]
fn what_is_wrong_with_a_key_is_named_and_the_key_is_not_repeated() {
    let digest = format!("sha256 = \"{}\"", "0".repeat(63));
    let both = with(&["sha256 = \"00\""]);
    let cases: [(String, &str); 20] = [
        (with(&["colour = \"red\""]), "there is no field \"colour\""),
        (with(&[&format!("\"{KEY}\" = 1")]), "there is no field (a text of 19 characters)"),
        (with(&["key = 5"]), "key is missing or not a text"),
        (with(&["key = \"\""]), "the key is empty"),
        (with(&["key = \"0123456789 abcdef\""]), "a character that no header can carry"),
        (with(&["key = \"0123456789abcdéf\""]), "a character that no header can carry"),
        (both, "give either key or sha256"),
        (with(&[]).replace("key = ", "# "), "give either key or sha256"),
        (with(&[&digest]).replace("key = \"", "# "), "sha256 is not 64 hexadecimal digits"),
        (with(&["shops = \"*\""]), "shops is missing or not a list of texts"),
        (with(&["shops = [1]"]), "shops is missing or not a list of texts"),
        (with(&["shops = []"]), "shops is empty"),
        (with(&["shops = [\"*\", \"s1\"]"]), "\"*\" stands alone"),
        (with(&["shops = [\"s{1}\"]"]), "the name of a shop contains a control character or a brace"),
        (with(&["scopes = []"]), "scopes is empty"),
        (with(&["scopes = [\"admin\"]"]), "there is no scope \"admin\""),
        (with(&[&format!("scopes = [\"{KEY}\"]")]), "there is no scope (a text of 19 characters)"),
        (with(&["scopes = [\"read\", \"read\"]"]), "the scope read is given twice"),
        (format!("{}{}", with(&[]), with(&[])), "another key before it has this name"),
        (format!("{}{}", with(&[]).replace("back office", "front"), with(&[])), "the same as that of front"),
    ];
    for (text, wanted) in cases {
        let problem = refusal(&text);
        assert!(problem.starts_with("key \"back office\": ") && problem.contains(wanted), "{wanted}: {problem}");
    }
}

#[test]
fn a_key_without_a_usable_name_is_named_by_its_place() {
    let unnamed = with(&[]).replace("name = \"back office\"\n", "");
    assert!(refusal(&format!("{}{unnamed}", with(&[]))).starts_with("key number 2: name is missing"));
    let long = with(&[]).replace("back office", &"n".repeat(65));
    assert!(refusal(&long).starts_with("key number 1: the name has 65 bytes"));
}

#[test]
fn what_is_no_keys_file_is_said_with_its_line_and_no_key() {
    assert!(refusal("").contains("it has no [[keys]]"));
    assert!(refusal("keys = []").contains("it has no [[keys]]"));
    assert!(refusal("keys = [1]").contains("[[keys]]"));
    assert!(refusal(&format!("colour = 1\n{}", with(&[]))).contains("unknown \"colour\""));
    assert!(refusal(&format!("[[keys]]\nname = \"a\"\nkey = {KEY}\n")).contains("line 3 is no TOML"));
    assert!(refusal(&"#".repeat(FILE_BYTES_MAX + 1)).contains("more than 1048576 bytes"));
    let missing = ApiKeys::read(Path::new("/no/keys.toml")).unwrap_err().to_string();
    assert!(missing.starts_with("the API keys file /no/keys.toml cannot be read: "), "{missing}");
}
