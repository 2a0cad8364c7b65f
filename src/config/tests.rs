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
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "heartbeat = \"soon\"\n[limits]\nwindows = 7\nspeed = 1\n").unwrap();
    let flags = [STORE, ("config", file.path().to_str().unwrap()), ("listen", "0.0.0.0:1"), ("tls_cert", "x")];
    let environment = [("SHOPRELAY_LIMITS_WINDOW", "0"), ("SHOPRELAY_LOG", "loud"), ("SHOPRELAY_AUTH", "mutual")];
    let problems = read(&flags, &environment).check().unwrap_err();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for part in
        ["limits.speed", "limits.windows", "tls_cert", "heartbeat", "limits.window:", "log", "auth", "0.0.0.0:1"]
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
    // An `@` in a parameter took the question mark along with what stands before it, and no parameter was seen.
    assert_eq!(redacted_url("redis://h?user=a@b&password=x"), "redis://***@b&password=***");
    assert_eq!(redacted_url("redis://h/1?password=a?b&c=d"), "redis://h/1?password=***&c=d");
    assert_eq!(redacted_url("embedded:/data/a@b"), "embedded:/data/a@b");
}

#[test]
fn several_values_are_parted_by_commas_wherever_they_come_from() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "jwt_secret_file = [\"a=/keys/a\", \"/keys/b\"]\n").unwrap();
    let from_file = ("config", file.path().to_str().unwrap());
    let wanted =
        [KeyFile { kid: Some("a".into()), path: "/keys/a".into() }, KeyFile { kid: None, path: "/keys/b".into() }];
    assert_eq!(read(&[from_file], &[]).token_secrets().unwrap(), wanted);
    assert_eq!(read(&[("jwt_secret_file", "a=/keys/a, /keys/b")], &[]).token_secrets().unwrap(), wanted);
    assert_eq!(read(&[], &[("SHOPRELAY_JWT_SECRET_FILE", "a=/keys/a,/keys/b")]).token_secrets().unwrap(), wanted);
    let wanted = [KeyFile { kid: None, path: "./a=b".into() }];
    assert_eq!(read(&[("jwt_secret_file", "./a=b")], &[]).token_secrets().unwrap(), wanted);
    for bad in ["a,", "a=", ",a"] {
        assert!(read(&[("jwt_secret_file", bad)], &[]).token_secrets().is_err(), "{bad}");
    }
    std::fs::write(file.path(), "jwt_secret_file = [1]\n").unwrap();
    let problems = read(&[from_file], &[]).token_secrets().unwrap_err();
    assert!(problems[0].to_string().contains("jwt_secret_file must be a list of texts"), "{problems:?}");
}

#[test]
fn tokens_and_their_keys_are_asked_for_together() {
    let jwt = ("auth", "jwt");
    assert!(matches!(check(&[STORE, jwt], &[]), Err(ConfigError::TokenKeysMissing)));
    let lonely = check(&[STORE, ("jwt_public_key_file", "p")], &[]);
    assert!(
        matches!(lonely, Err(ConfigError::TokenKeysUnused { key: "jwt_public_key_file", auth: "none" })),
        "{lonely:?}"
    );
    let mistyped = read(&[STORE, ("auth", "jwd"), ("jwt_secret_file", "p")], &[]).check().unwrap_err();
    assert!(matches!(mistyped[..], [ConfigError::Value { key: "auth", .. }]), "{mistyped:?}");
    let twice = check(&[STORE, jwt, ("jwt_secret_file", "a=x"), ("jwt_public_key_file", "a=y")], &[]);
    assert!(matches!(twice, Err(ConfigError::SameKid { .. })), "{twice:?}");
    let config = check(&[STORE, jwt, ("jwt_secret_file", "x"), ("listen", "0.0.0.0:80")], &[]).unwrap();
    let files = TokenKeyFiles { secrets: vec![KeyFile { kid: None, path: "x".into() }], public_keys: Vec::new() };
    assert_eq!(config.auth, Auth::Jwt(files));
}

#[test]
fn nobody_may_use_the_api_from_outside_without_keys_or_insecure() {
    let outside = ("api_listen", "0.0.0.0:80");
    let error = check(&[STORE, outside], &[]).unwrap_err().to_string();
    assert!(error.contains("0.0.0.0:80") && error.contains("a loopback address only"), "{error}");
    assert!(check(&[STORE, outside, ("insecure", "true")], &[]).is_ok());
    let config = check(&[STORE, outside, ("api_keys_file", "keys.toml")], &[]).unwrap();
    assert_eq!(config.api_keys_file, Some("keys.toml".into()));
}

const TLS: [(&str, &str); 3] = [("tls_listen", "127.0.0.1:0"), ("tls_cert", "cert.pem"), ("tls_key", "key.pem")];

#[test]
fn the_files_of_tls_are_asked_for_together() {
    let tls = |more: &[(&'static str, &str)]| check(&[&[STORE], &TLS[..], more].concat(), &[]);
    let taken = tls(&[("tls_client_ca", "ca.pem"), ("tls_client_crl", "crl.pem")]).unwrap().tls.unwrap();
    assert_eq!(taken.listen.to_string(), "127.0.0.1:0");
    let clients = ClientFiles { authorities: "ca.pem".into(), revoked: Some("crl.pem".into()) };
    let files = TlsFiles { certificate: "cert.pem".into(), key: "key.pem".into(), clients: Some(clients) };
    assert_eq!(taken.files, files);
    assert_eq!(tls(&[]).unwrap().tls.unwrap().files.clients, None);
    assert!(check(&[STORE], &[]).unwrap().tls.is_none());
    assert!(matches!(tls(&[("tls_client_crl", "crl.pem")]), Err(ConfigError::RevokedByNobody)));
    assert!(matches!(check(&[STORE, TLS[0], TLS[1]], &[]), Err(ConfigError::TlsFileMissing { key: "tls_key" })));
    assert!(matches!(check(&[STORE, TLS[0], TLS[2]], &[]), Err(ConfigError::TlsFileMissing { key: "tls_cert" })));
    assert!(matches!(check(&[STORE, TLS[1]], &[]), Err(ConfigError::TlsFileUnused { key: "tls_cert" })));
}

#[test]
fn nobody_may_log_in_from_outside_by_tls_alone_without_insecure() {
    let outside = [STORE, ("tls_listen", "0.0.0.0:8443"), TLS[1], TLS[2], ("tls_client_ca", "ca.pem")];
    let error = check(&outside, &[]).unwrap_err().to_string();
    assert!(error.contains("0.0.0.0:8443") && error.contains("--insecure"), "{error}");
    assert!(check(&[&outside[..], &[("insecure", "true")]].concat(), &[]).is_ok());
    assert!(check(&[&outside[..], &[("auth", "mtls")]].concat(), &[]).is_ok());
}

#[test]
fn mtls_needs_client_certificates_and_no_tokens() {
    let mtls = |more: &[(&'static str, &str)]| check(&[&[STORE, ("auth", "mtls")], more].concat(), &[]);
    assert!(matches!(mtls(&[]), Err(ConfigError::MtlsWithoutTls)));
    assert!(matches!(mtls(&TLS), Err(ConfigError::MtlsWithoutTls)));
    let whole = [&TLS[..], &[("tls_client_ca", "ca.pem")]].concat();
    assert_eq!(mtls(&whole).unwrap().auth, Auth::Mtls);
    let error = mtls(&[&whole[..], &[("jwt_secret_file", "s")]].concat()).unwrap_err();
    assert!(error.to_string().contains("auth is mtls, so no token would be looked at"), "{error}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[legacy]\nenabled = true\nrequire_token = \"*\"\n").unwrap();
    let legacy = mtls(&[&whole[..], &[("config", file.path().to_str().unwrap())]].concat());
    assert!(matches!(legacy, Err(ConfigError::LegacyTokensUnderMtls)), "{legacy:?}");
}

#[test]
fn the_event_stream_needs_a_redis() {
    assert!(matches!(check(&[("events", "true")], &[]), Err(ConfigError::EventsEmbedded)));
    assert!(check(&[STORE, ("events", "true")], &[]).unwrap().events);
}

#[test]
fn an_origin_is_a_scheme_and_a_host() {
    let origins = |text| check(&[STORE, ("cors_origins", text)], &[]).map(|config| config.cors_origins);
    assert_eq!(origins("").unwrap(), Origins::Only(Vec::new()));
    assert_eq!(origins("*").unwrap(), Origins::Any);
    let two = vec!["https://back.example".to_owned(), "http://localhost:3000".to_owned()];
    assert_eq!(origins("https://Back.example, http://localhost:3000").unwrap(), Origins::Only(two));
    for bad in ["back.example", "https://back.example/", "https://", "https://a,*", "https://*.example"] {
        assert!(origins(bad).is_err(), "{bad}");
    }
}

#[test]
fn proxies_are_networks_or_addresses() {
    let proxies = |text| check(&[STORE, ("trusted_proxies", text)], &[]).map(|config| config.trusted_proxies);
    assert!(proxies("").unwrap().is_empty());
    let two = proxies("10.0.0.0/8, 2001:db8::7").unwrap();
    assert_eq!(two.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "2001:db8::7/128"]);
    for bad in ["10.0.0.0/33", "balancer", "10.0.0.1-10.0.0.9", "10.0.0.0/8,,10.1.0.0/16"] {
        assert!(proxies(bad).is_err(), "{bad}");
    }
}

#[test]
fn limits_that_may_be_left_out_say_so() {
    let limits = |key, value| check(&[STORE], &[(key, value)]).map(|config| config.limits);
    let address = "SHOPRELAY_LIMITS_ADDRESS_CONNECTIONS";
    assert_eq!(limits(address, "none").unwrap().address_connections, None);
    assert_eq!(limits(address, "7").unwrap().address_connections, Some(7));
    assert!(limits(address, "0").unwrap_err().to_string().contains("or none"));
    let memory = "SHOPRELAY_LIMITS_MEMORY_MIB";
    assert_eq!(limits(memory, "auto").unwrap().memory, MemoryLimit::Auto);
    assert_eq!(limits(memory, "none").unwrap().memory, MemoryLimit::None);
    assert_eq!(limits(memory, "512").unwrap().memory, MemoryLimit::Mib(512));
    assert!(limits(memory, "512Mi").is_err());
}

#[test]
fn a_frame_has_to_come_within_a_heartbeat() {
    let slow = ("SHOPRELAY_LIMITS_SESSION_BYTES_PER_S", "1024");
    assert!(matches!(check(&[STORE], &[slow]), Err(ConfigError::FramesTooSlow { .. })));
    assert!(check(&[STORE], &[slow, ("SHOPRELAY_LIMITS_FRAME_BYTES", "16384")]).is_ok());
}

#[test]
fn shops_whose_legacy_devices_need_a_token_are_named_with_a_key() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let read_file = |text: &str, flags: &[(&'static str, &str)]| {
        std::fs::write(file.path(), text).unwrap();
        let config = [STORE, ("config", file.path().to_str().unwrap())];
        check(&[&config[..], flags].concat(), &[])
    };
    let some = "jwt_secret_file = \"s\"\n[legacy]\nenabled = true\nrequire_token = \"a, b\"\n";
    let config = read_file(some, &[]).unwrap();
    assert!(config.legacy && config.auth == Auth::None);
    let tokens = config.legacy_tokens.unwrap();
    assert!(tokens.shops.contains("a") && tokens.shops.contains("b") && !tokens.shops.contains("c"));
    assert_eq!(tokens.files.secrets.len(), 1);
    let all = read_file("[legacy]\nrequire_token = \"*\"\n", &[("legacy", "true"), ("jwt_secret_file", "s")]).unwrap();
    assert!(all.legacy_tokens.unwrap().shops.contains("any"));
    // Under jwt everyone needs one anyway.
    let jwt = [("legacy", "true"), ("auth", "jwt"), ("jwt_secret_file", "s")];
    assert_eq!(read_file("[legacy]\nrequire_token = \"a\"\n", &jwt).unwrap().legacy_tokens, None);
    let refused = |flags: &[(&'static str, &str)], part: &str| {
        let error = read_file("[legacy]\nrequire_token = \"a\"\n", flags).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(&[("legacy", "true")], "--jwt-secret-file");
    refused(&[("jwt_secret_file", "s")], "say --legacy");
    let error = read_file("[legacy]\nenabled = true\nrequire_token = \"*,a\"\n", &[]).unwrap_err();
    assert!(error.to_string().contains("stands alone"), "{error}");
    assert!(read_file("legacy = true\n", &[]).unwrap().legacy_tokens.is_none());
}
