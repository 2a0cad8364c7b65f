//! The command line: one error becomes one line and an exit status.

use std::io::{IsTerminal as _, Write as _};
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use shoprelay::auth::{self, NewToken};
use shoprelay::bench::{self, BENCH_FLOOR, BENCH_WORKER, Given, OptKind};
use shoprelay::check::Report;
use shoprelay::config::{Config, ConfigError, KeyFile, Kind, Layers, SETTINGS};
use shoprelay::demo::{self, Options};
use shoprelay::http::health::{self, Question};
use shoprelay::ids::unix_ms;
use shoprelay::message::Role;
use shoprelay::node::Node;
use shoprelay::prove::{self, Crew, Verdict};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long a token may be good.
const TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3650 * 86_400);

fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) if !error.use_stderr() => {
            print!("{error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or("error: wrong arguments").trim_start_matches("error: ");
            return fail(&format!("{line}; `shoprelay --help` lists what there is"));
        }
    };
    match matches.subcommand() {
        Some(("serve", matches)) => {
            let layers = layers(matches);
            match layers.check() {
                Ok(config) => serve(config, &layers.unknown_variables),
                Err(problems) => fail(&first_of(&problems)),
            }
        }
        Some(("check", matches)) => {
            let report = Report::of(&layers(matches));
            // Whoever closed the pipe has read what they wanted.
            let _ = write!(std::io::stdout(), "{report}");
            if report.is_fine() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Some(("token", matches)) => match token(matches) {
            Ok(token) => {
                // Whoever closed the pipe does not want it any more.
                let _ = writeln!(std::io::stdout(), "{token}");
                ExitCode::SUCCESS
            }
            Err(why) => fail(&why),
        },
        Some(("health", matches)) => health(matches),
        Some(("demo", matches)) => demo(matches),
        Some(("prove", matches)) => prove(matches),
        Some(("bench", matches)) => bench(matches),
        Some((BENCH_WORKER, _)) => {
            bench::worker();
            ExitCode::SUCCESS
        }
        Some((BENCH_FLOOR, _)) => {
            bench::floor();
            ExitCode::SUCCESS
        }
        _ => fail("say what to do; `shoprelay --help` lists what there is"),
    }
}

fn command() -> Command {
    Command::new("shoprelay")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A push relay that gets every message of a shop's devices delivered, and proves it")
        .arg_required_else_help(true)
        .subcommand(Command::new("serve").about("Run a node of the relay, until SIGTERM").args(settings()))
        .subcommand(
            Command::new("check").about("Print the settings that serve would take, and what is wrong").args(settings()),
        )
        .subcommand(
            Command::new("token")
                .about("Print a token for a device, signed with the secret of --jwt-secret-file")
                .args(token_claims())
                .args(settings()),
        )
        .subcommand(
            Command::new("health")
                .about("Ask the node with these settings whether it is alive; exit status 0 if it is")
                .arg(
                    Arg::new("ready")
                        .long("ready")
                        .help("ask whether it serves devices, too")
                        .action(ArgAction::SetTrue),
                )
                .args(settings()),
        )
        .subcommand(
            Command::new("demo").about("Show a relay at work: a shop with tills, handhelds and bad luck").args([
                Arg::new("seconds")
                    .long("seconds")
                    .help("end after so many seconds; without it, at Ctrl-C or q")
                    .value_parser(clap::value_parser!(u64).range(1..=31_536_000)),
                Arg::new("listen")
                    .long("listen")
                    .help("where devices connect, yours too [default: 127.0.0.1:8080, or a free port]"),
            ]),
        )
        .subcommand(proof())
        .subcommand(bench_command())
        .subcommand(Command::new(BENCH_WORKER).about("A process of bench, which starts it").hide(true))
        .subcommand(Command::new(BENCH_FLOOR).about("A process of bench, which starts it").hide(true))
}

/// What a proof is asked to be.
fn proof() -> Command {
    let one = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help);
    let count = |name, help, default: &'static str, range: std::ops::RangeInclusive<u32>| {
        let bounds = i64::from(*range.start())..=i64::from(*range.end());
        one(name, help).value_parser(clap::value_parser!(u32).range(bounds)).default_value(default)
    };
    Command::new("prove").about("Hold a deployment to its promises, while you break things").args([
        one("url", "where devices connect, ws:// or wss://; repeated, they take turns").action(ArgAction::Append),
        count("seconds", "how long messages are sent", "60", 1..=31_536_000),
        count("rate", "messages a second, over all shops", "20", 1..=100_000),
        count("shops", "shops of the proof's own", "2", 1..=1_000),
        count("mains", "mains of each shop", "3", 1..=63),
        count("subs", "subs of each shop", "5", 1..=63),
        one("settle", "how long what was accepted may take to arrive at the end").default_value("60s"),
        one("shop-prefix", "what the shops' names begin with").default_value("prove-"),
        one("token-secret-file", "secret that the devices' tokens are signed with, where the relay asks for tokens"),
        one("kid", "the secret's kid, where it has one"),
        one("tls-ca", "PEM file of the authority to trust for wss://, instead of the system's"),
        one("journal", "directory for the journals: what every device sent and got, in JSON lines"),
        one("json", "print the verdict as JSON").action(ArgAction::SetTrue),
        one("report", "file for the verdict as JSON, beside what is printed"),
    ])
}

fn prove(matches: &ArgMatches) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no threads can be started: {error}")),
    };
    match prove_settings(matches).and_then(|settings| runtime.block_on(run_proof(&settings))) {
        Ok(verdict) => match tell_verdict(matches, &verdict) {
            Ok(()) if verdict.kept => ExitCode::SUCCESS,
            Ok(()) => ExitCode::FAILURE,
            Err(why) => fail(&why),
        },
        Err(why) => fail(&why),
    }
}

fn prove_settings(matches: &ArgMatches) -> Result<prove::Settings, String> {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let number = |name: &str| matches.get_one::<u32>(name).copied().unwrap_or_default();
    let kid = text("kid");
    let secrets = text("token-secret-file").map(|path| KeyFile { kid: kid.clone(), path: path.into() });
    let settle = text("settle").unwrap_or_default();
    let settle = humantime::parse_duration(&settle).ok().filter(|settle| *settle <= Duration::from_secs(3600));
    let settings = prove::Settings {
        urls: matches.get_many::<String>("url").into_iter().flatten().cloned().collect(),
        shops: number("shops"),
        crew: Crew {
            mains: u8::try_from(number("mains")).unwrap_or(u8::MAX),
            subs: u8::try_from(number("subs")).unwrap_or(u8::MAX),
        },
        rate: number("rate"),
        lasts: Duration::from_secs(number("seconds").into()),
        settle: settle.ok_or("--settle: give a time of at most 1h, such as 60s")?,
        shop_prefix: text("shop-prefix").unwrap_or_default(),
        secrets: secrets.into_iter().collect(),
        kid,
        tls_ca: text("tls-ca").map(Into::into),
        journal: text("journal").map(Into::into),
    };
    settings.check().map_err(|error| error.to_string())
}

async fn run_proof(settings: &prove::Settings) -> Result<Verdict, String> {
    let (mut interrupt, mut terminate) = match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
        (Err(error), _) | (_, Err(error)) => return Err(format!("signals cannot be heard: {error}")),
    };
    let interrupted = async || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let is_watched = std::io::stderr().is_terminal();
    let show = |line: String| {
        if is_watched {
            eprintln!("{line}");
        }
    };
    prove::run(settings, interrupted, show).await.map_err(|error| error.to_string())
}

fn tell_verdict(matches: &ArgMatches, verdict: &Verdict) -> Result<(), String> {
    let json =
        serde_json::to_string_pretty(verdict).map_err(|error| format!("the verdict cannot be written: {error}"))?;
    if let Some(path) = matches.get_one::<String>("report") {
        std::fs::write(path, format!("{json}\n")).map_err(|error| format!("--report {path}: {error}"))?;
    }
    let shown = if matches.get_flag("json") { json } else { verdict.to_string().trim_end().to_owned() };
    // Whoever closed the pipe has the exit status.
    let _ = writeln!(std::io::stdout(), "{shown}");
    Ok(())
}

/// One flag for each option of a benchmark.
fn bench_command() -> Command {
    let scenarios: Vec<String> = bench::SCENARIOS.iter().map(|(_, name, what)| format!("{name}: {what}")).collect();
    let scenario = Arg::new("scenario").help(scenarios.join("\n"));
    let options = bench::OPTIONS.iter().map(|option| {
        let arg = Arg::new(option.name).long(option.name);
        match option.kind {
            OptKind::Value("") => arg.help(option.help),
            OptKind::Value(default) => arg.help(format!("{} [default: {default}]", option.help)),
            OptKind::Many => arg.help(option.help).action(ArgAction::Append),
            OptKind::Switch => arg
                .help(option.help)
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
        }
    });
    let about = "Measure a deployment: deliveries, latency, CPU and memory, beside the least they can be";
    Command::new("bench").about(about).arg(scenario).args(options)
}

fn bench(matches: &ArgMatches) -> ExitCode {
    let given = Given(|name: &str| {
        matches.get_many::<String>(name).map(|values| values.cloned().collect()).unwrap_or_default()
    });
    let scenario = matches.get_one::<String>("scenario").map(String::as_str).unwrap_or_default();
    let settings = match bench::Settings::of(scenario, &given) {
        Ok(settings) => settings,
        Err(why) => return fail(&why),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("nothing can be waited for: {error}")),
    };
    match runtime.block_on(bench::run(&settings)) {
        Ok(outcome) => {
            // Whoever closed the pipe has read what they wanted.
            let _ = write!(std::io::stdout(), "{outcome}");
            if outcome.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => fail(&why),
    }
}

/// Asks the node that these settings would make, and tells what it answered.
fn health(matches: &ArgMatches) -> ExitCode {
    // Of all the settings only this one matters, so a mistake in another one is not told here.
    let effective = layers(matches).effective();
    let listen = effective.iter().find(|setting| setting.key == "metrics_listen").map_or("none", |it| &it.value);
    let question = if matches.get_flag("ready") { Question::Ready } else { Question::Alive };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime can be started: {error}")),
    };
    match runtime.block_on(health::ask(listen, question)) {
        Ok(answer) => {
            // Whoever closed the pipe looks at the exit status alone.
            let _ = writeln!(std::io::stdout(), "{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error.to_string()),
    }
}

fn demo(matches: &ArgMatches) -> ExitCode {
    let lasts = matches.get_one::<u64>("seconds").map(|seconds| Duration::from_secs(*seconds));
    // The relay's own words would be written across the screen.
    if !std::io::stdout().is_terminal()
        && let Err(why) = log_to_stderr("warn")
    {
        return fail(&why);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no threads can be started: {error}")),
    };
    match runtime.block_on(demo::run(Options { lasts, listen: matches.get_one::<String>("listen").cloned() })) {
        Ok(summary) if summary.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => fail(&error.to_string()),
    }
}

/// One flag for each setting that has one.
fn settings() -> impl Iterator<Item = Arg> {
    SETTINGS.iter().filter(|setting| setting.kind != Kind::File).map(|setting| {
        let help = match setting.default {
            "" => format!("{} [env: {}]", setting.help, setting.variable()),
            default => format!("{} [env: {}] [default: {default}]", setting.help, setting.variable()),
        };
        let arg = Arg::new(setting.key).long(setting.flag()).help(help);
        let is_switch = setting.kind == Kind::Switch || setting.default == "false";
        if is_switch {
            arg.num_args(0..=1).require_equals(true).default_missing_value("true")
        } else if setting.kind == Kind::List {
            arg.action(ArgAction::Append)
        } else {
            arg.action(ArgAction::Set)
        }
    })
}

/// What a token says.
fn token_claims() -> [Arg; 8] {
    let one = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help);
    [
        one("shop", "the shop it is for"),
        one("device", "the device it is for"),
        one("role", "main or sub"),
        one("ttl", "how long it is good, such as 30m, 24h or 365d").default_value("24h"),
        one("group", "a group the device is in, which may be repeated; without it they stay as they are")
            .action(ArgAction::Append),
        one("user", "the user the device is bound to"),
        one("op", "an op the device may send, which may be repeated; without it all are").action(ArgAction::Append),
        one("kid", "which secret signs, where there are several"),
    ]
}

/// The token that the command line asks for.
fn token(matches: &ArgMatches) -> Result<String, String> {
    let secrets = layers(matches).token_secrets().map_err(|problems| first_of(&problems))?;
    let given = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let needed = |name| given(name).ok_or_else(|| format!("say --{name}; a token is for one shop, device and role"));
    let listed = |name| -> Option<Vec<&str>> { Some(matches.get_many::<String>(name)?.map(String::as_str).collect()) };
    let name = |flag: &str, text: &str| text.parse().map_err(|cause| format!("--{flag} {text:?}: the name {cause}"));
    let role = match needed("role")? {
        "main" => Role::Main,
        "sub" => Role::Sub,
        other => return Err(format!("--role {other:?}: give main or sub")),
    };
    let ttl = needed("ttl").map(humantime::parse_duration)?.ok().filter(|ttl| TTL.contains(ttl));
    let ttl = ttl.ok_or("--ttl: give a time from 1s to 3650d, such as 30m, 24h or 365d")?;
    let groups = listed("group").map(|groups| groups.into_iter().map(|group| name("group", group)).collect());
    let new = NewToken {
        shop: needed("shop")?.parse().map_err(|cause| format!("--shop: the name {cause}"))?,
        device: needed("device")?.parse().map_err(|cause| format!("--device: the name {cause}"))?,
        role,
        expires_at_s: unix_ms() / 1000 + ttl.as_secs(),
        groups: groups.transpose()?,
        user: given("user").map(|user| name("user", user)).transpose()?,
        ops: listed("op").map(|ops| ops.into_iter().map(str::to_owned).collect()),
    };
    auth::issue(&secrets, given("kid"), &new).map_err(|error| error.to_string())
}

fn layers(matches: &ArgMatches) -> Layers {
    let flags = SETTINGS.iter().filter(|setting| setting.kind != Kind::File).filter_map(|setting| {
        let values: Vec<&str> = matches.get_many::<String>(setting.key)?.map(String::as_str).collect();
        Some((setting.key, values.join(",")))
    });
    // A variable that is no Unicode is none of ours, and must not stop the start.
    let environment = std::env::vars_os()
        .filter_map(|(variable, value)| Some((variable.into_string().ok()?, value.to_string_lossy().into_owned())));
    Layers::read(flags, environment)
}

/// One line for what stops the start.
fn first_of(problems: &[ConfigError]) -> String {
    match problems {
        [] => "the settings cannot be taken".into(),
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more; `shoprelay check` lists all)", rest.len()),
    }
}

/// Says why in one line, on standard error.
fn fail(why: &str) -> ExitCode {
    eprintln!("shoprelay: {why}");
    ExitCode::FAILURE
}

fn serve(config: Config, unknown_variables: &[String]) -> ExitCode {
    if let Err(why) = log_to_stderr(&config.log) {
        return fail(&why);
    }
    for variable in unknown_variables {
        warn!(variable, "there is no such setting; the variable is ignored");
    }
    // With one core a second thread, and the hand-over between threads, would only cost.
    let mut runtime = match std::thread::available_parallelism() {
        Ok(cores) if cores.get() == 1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no threads can be started: {error}")),
    };
    match runtime.block_on(run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

async fn run(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let store = config.store.redacted();
    let mut node = Node::start(config).await?;
    let addresses = node.addresses();
    let shown = |address: Option<std::net::SocketAddr>| {
        address.map_or_else(|| "none".to_owned(), |address| address.to_string())
    };
    info!(
        listen = shown(addresses.listen),
        tls_listen = shown(addresses.tls_listen),
        api_listen = shown(addresses.api_listen),
        metrics_listen = shown(addresses.metrics_listen),
        store,
        node = %node.id(),
        version = env!("CARGO_PKG_VERSION"),
        "ready"
    );
    let is_interrupted = loop {
        tokio::select! {
            _ = terminate.recv() => break false,
            _ = interrupt.recv() => break true,
            _ = hangup.recv() => node.reload().await,
            () = node.failed() => return Err("a part of the node has failed; start it anew".into()),
        }
    };
    // Who presses Ctrl-C on the only node need not wait for devices that have nowhere to go.
    let is_at_once = is_interrupted && node.is_alone().await;
    let hurry = async {
        if is_at_once {
            return;
        }
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    node.stop(hurry).await;
    Ok(())
}

fn log_to_stderr(directives: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(directives).map_err(|error| format!("what to log cannot be read: {error}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        log.init()
    } else {
        log.json().init()
    }
    Ok(())
}
