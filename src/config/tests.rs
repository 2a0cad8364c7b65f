//! What is taken, refused and shown.

use super::*;

fn read(flags: &[(&'static str, &str)], environment: &[(&str, &str)]) -> Layers {
    let flags = flags.iter().map(|(key, value)| (*key, value.to_string()));
    let environment = environment.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    Layers::read(flags, environment)
}

/// The config, or the first of the problems.
fn check(flags: &[(&'static str, &str)], environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    read(flags, environment).check().map_err(|problems| problems.into_iter().next().unwrap())
}

const STORE: (&str, &str) = ("store", "redis://127.0.0.1");

#[test]
fn every_default_is_within_its_own_bounds() {
    let config = check(&[STORE], &[]).unwrap();
    assert_eq!(config.limits.frame_bytes, 65536);
    assert_eq!(config.retention.messages, Duration::from_secs(7 * 86400));
}

#[test]
fn flags_outweigh_the_environment_and_that_the_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "drain_window = \"1s\"\nheartbeat = \"3s\"\n[limits]\nwindow = 7\n").unwrap();
    let path = file.path().to_str().unwrap();
    let environment = [("SHOPRELAY_CONFIG", path), ("SHOPRELAY_DRAIN_WINDOW", "2s"), ("SHOPRELAY_LIMITS_WINDOW", "8")];
    let config = check(&[STORE, ("drain_window", "3s")], &environment).unwrap();
    assert_eq!(config.drain_window, Duration::from_secs(3));
    assert_eq!(config.limits.window, 8);
    assert_eq!(config.heartbeat, Duration::from_secs(3));
}

#[test]
fn what_is_unknown_or_out_of_bounds_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[limits]\nwindows = 7\n").unwrap();
    let error = check(&[STORE, ("config", file.path().to_str().unwrap())], &[]).unwrap_err();
    assert!(error.to_string().contains("\"limits.windows\""), "{error}");
    let error = check(&[STORE], &[("SHOPRELAY_LIMITS_WINDOW", "0")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "SHOPRELAY_LIMITS_WINDOW: \"0\" is no value for limits.window: give a whole number from 1 to 10000"
    );
    let error = check(&[STORE, ("legacy", "true")], &[]).unwrap_err();
    assert!(error.to_string().contains("legacy is not in this version"), "{error}");
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "heartbeat = \"soon\"\n[limits]\nwindows = 7\nspeed = 1\n").unwrap();
    let flags = [STORE, ("config", file.path().to_str().unwrap()), ("listen", "0.0.0.0:1"), ("legacy", "true")];
    let environment = [("SHOPRELAY_LIMITS_WINDOW", "0"), ("SHOPRELAY_LOG", "loud"), ("SHOPRELAY_AUTH", "jwt")];
    let problems = read(&flags, &environment).check().unwrap_err();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for part in ["limits.speed", "limits.windows", "legacy", "heartbeat", "limits.window:", "log", "auth", "0.0.0.0:1"]
    {
        assert!(told.iter().any(|line| line.contains(part)), "{part}: {told:#?}");
    }
    assert_eq!(told.len(), 8, "{told:#?}");
}

#[test]
fn a_setting_is_shown_with_where_it_came_from() {
    let layers = read(&[("store", "redis://me:secret@host")], &[("SHOPRELAY_HEARTBEAT", "9s")]);
    let shown = |key| {
        let effective = layers.effective().into_iter().find(|setting| setting.key == key).unwrap();
        (effective.value, effective.source_name)
    };
    assert_eq!(shown("store"), ("redis://***@host".into(), "--store".into()));
    assert_eq!(shown("heartbeat"), ("9s".into(), "SHOPRELAY_HEARTBEAT".into()));
    assert_eq!(shown("audit"), ("30s".into(), "default".into()));
    assert!(!layers.effective().iter().any(|setting| setting.key == "tls_cert"));
}

#[test]
fn a_line_that_cannot_be_read_is_numbered_and_not_repeated() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "audit = \"9s\"\nstore = \"redis://me:secret@host\n").unwrap();
    let error = check(&[("config", file.path().to_str().unwrap())], &[]).unwrap_err().to_string();
    assert!(error.contains("line 2") && !error.contains("secret"), "{error}");
}

#[test]
fn unknown_variables_are_only_reported() {
    let layers = read(&[], &[("SHOPRELAY_PORT_8080_TCP", "x")]);
    assert_eq!(layers.unknown_variables, ["SHOPRELAY_PORT_8080_TCP"]);
}

#[test]
fn nobody_may_log_in_from_outside_without_insecure() {
    assert!(matches!(check(&[STORE, ("listen", "0.0.0.0:80")], &[]), Err(ConfigError::Open { .. })));
    assert!(check(&[STORE, ("listen", "0.0.0.0:80"), ("insecure", "true")], &[]).is_ok());
    assert!(check(&[STORE, ("listen", "[::1]:80")], &[]).is_ok());
}

#[test]
fn a_password_is_never_printed() {
    let error = check(&[("store", "http://me:secret@host")], &[]).unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
    let config = check(&[("store", "redis://me:se@cret@host:1/2")], &[]).unwrap();
    assert_eq!(format!("{:?}", config.store), "redis://***@host:1/2");
    assert_eq!(redacted_url("me:secret@host"), "***@host");
    assert_eq!(
        redacted_url("redis-sentinel://h?sentinelPassword=x&a=b"),
        "redis-sentinel://h?sentinelPassword=***&a=b"
    );
    assert_eq!(redacted_url("embedded:/data/a@b"), "embedded:/data/a@b");
}
