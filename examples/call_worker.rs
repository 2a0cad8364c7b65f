//! A back-end worker that answers the calls of devices. Read it from top to bottom: it is meant as the
//! documentation for a worker in any language, and uses nothing of the relay but its two interfaces,
//! the event stream in Redis and the HTTP API.
//!
//! A device sends `{"op":"call","method":"price","data":{"dish":"tea"},"ref":7}` and is told `ok` as
//! soon as the call is in the stream. One of the workers of a consumer group reads the entry, and
//! answers by a signal to the connection that the call came from:
//!
//! ```text
//! {"op":"signal","type":"answer","data":{"ref":"7","by":"worker-1","result":{"dish":"tea","price":300}},…}
//! {"op":"signal","type":"answer","data":{"ref":"7","by":"worker-1","error":"no dish is called tea"},…}
//! ```
//!
//! The relay does not know what an answer is. The type `answer` and the form of its data are an agreement
//! between these workers and their devices, and could be anything.
//!
//! # What it promises
//!
//! Every call is answered at least once, whichever worker dies and whenever, as long as one is left and the
//! stream still holds the call. It may be answered twice: a worker that dies after it answered and before
//! it said so is taken over. So a device ignores an answer whose `ref` it no longer waits for, and a method
//! that changes something has to be harmless when it is carried out twice (the entry's id is the same both
//! times, and makes a good key).
//!
//! # To run it
//!
//! ```text
//! shoprelay serve --store redis://127.0.0.1:6379 --events
//! NAME=worker-1 cargo run --example call_worker
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, StreamsInterface};
use fred::types::Builder;
use fred::types::config::Config;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// An entry of the stream: flat fields, all of them text.
type Fields = HashMap<String, String>;
/// An entry with its id.
type Entry = (String, Fields);

/// How often an answer is tried in a row before the entry is left for later.
const TRIES: u32 = 3;
/// How long an answer of the API may take.
const API_WAIT: Duration = Duration::from_secs(5);

// ---------------------------------------------------------------------------------------------------
// Settings
// ---------------------------------------------------------------------------------------------------

/// What the worker is told by its environment.
struct Settings {
    /// `REDIS_URL`: the Redis that the relay stores in.
    redis_url: String,
    /// `STREAM`: the relay's prefix (`sr:` by default) and `events`.
    stream: String,
    /// `GROUP`: the workers that share the calls. Another group, such as one that keeps books of who is
    /// online, reads the same stream without taking anything from this one.
    group: String,
    /// `NAME`: this worker, within its group. Two that run at once must not have the same name; one that is
    /// started again may well, and a new name does no harm either.
    name: String,
    /// `API`: the `host:port` of a relay's API listener, or of a balancer before several.
    api: String,
    /// `API_KEY`: a key with the scope `write` for the shops; not needed where the relay has no keys file.
    api_key: Option<String>,
    /// `IDLE_MS`: an entry that a worker has read and not acknowledged for so long is taken over. Choose
    /// it well above what `BATCH` calls take, or workers that are merely slow are taken over as well.
    idle_ms: u64,
    /// `BATCH`: entries that are read at once.
    batch: u64,
    /// `DELAY_MS`: makes every call take so much longer. Of no use but to try out what happens when a worker
    /// dies in the middle of its work, which the relay's own tests do.
    delay: Duration,
}

impl Settings {
    fn read() -> Result<Settings, Box<dyn Error>> {
        Ok(Settings {
            redis_url: setting("REDIS_URL", "redis://127.0.0.1:6379".to_owned())?,
            stream: setting("STREAM", "sr:events".to_owned())?,
            group: setting("GROUP", "call-workers".to_owned())?,
            name: setting("NAME", format!("worker-{}", std::process::id()))?,
            api: setting("API", "127.0.0.1:8081".to_owned())?,
            api_key: std::env::var("API_KEY").ok(),
            idle_ms: setting("IDLE_MS", 30_000)?,
            batch: setting("BATCH", 10)?,
            delay: Duration::from_millis(setting("DELAY_MS", 0)?),
        })
    }
}

/// A variable of the environment, or its default.
fn setting<T: FromStr<Err: Display>>(name: &str, default: T) -> Result<T, String> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|cause| format!("{name}={text}: {cause}")),
        Err(_) => Ok(default),
    }
}

// ---------------------------------------------------------------------------------------------------
// The methods: the part that is yours
// ---------------------------------------------------------------------------------------------------

/// Carries out a method. An `Err` is an answer too: the device is told what is wrong with its call.
fn perform(method: &str, data: &Value) -> Result<Value, String> {
    match method {
        "price" => {
            let dish = data["dish"].as_str().ok_or("price needs data of the form {\"dish\": text}")?;
            // A real worker asks a database here.
            let price = match dish {
                "tea" => 300,
                "rice" => 250,
                "noodles" => 1200,
                _ => return Err(format!("no dish is called {dish}")),
            };
            Ok(json!({"dish": dish, "price": price}))
        }
        _ => Err(format!("no method is called {method}")),
    }
}

// ---------------------------------------------------------------------------------------------------
// The loop
// ---------------------------------------------------------------------------------------------------

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::read()?;
    let redis = Builder::from_config(Config::from_url(&settings.redis_url)?).build()?;
    let cannot = |what: &str, cause: fred::error::Error| format!("cannot {what} at {}: {cause}", settings.redis_url);
    redis.init().await.map_err(|cause| cannot("reach Redis", cause))?;
    join_group(&redis, &settings).await.map_err(|cause| cannot("join the group", cause))?;
    eprintln!("{} waits for calls in {} as one of {}", settings.name, settings.stream, settings.group);

    // There is no way to stop but to be killed, and none is needed: what is read and not acknowledged by
    // then is taken over, by another worker or by this one after its restart. For the same reason it may
    // simply end with an error where Redis goes away; whatever supervises it starts it again.
    let mut cursor = "0-0".to_owned();
    loop {
        // First what nobody has finished, for it has waited longest; then what is new.
        let mut entries = take_over(&redis, &settings, &mut cursor).await?;
        if entries.is_empty() {
            entries = read_new(&redis, &settings).await?;
        }
        for (id, fields) in entries {
            // Acknowledged only now that the API has taken the answer. The other way round, a worker that
            // dies in between loses the call.
            if handle(&settings, &id, &fields).await? {
                let _count: u64 = redis.xack(&settings.stream, &settings.group, id).await?;
            }
        }
    }
}

/// Makes the group, unless another worker did. `0` gives a new group what the stream holds already, `$`
/// only what comes from now on. MKSTREAM makes the stream, if no relay has written to it yet.
async fn join_group(redis: &Client, settings: &Settings) -> Result<(), fred::error::Error> {
    let made: Result<(), _> = redis.xgroup_create(&settings.stream, &settings.group, "0", true).await;
    match made {
        Err(cause) if cause.details().starts_with("BUSYGROUP") => Ok(()),
        made => made,
    }
}

/// `XAUTOCLAIM stream group name IDLE_MS cursor COUNT n`: entries that were given to a worker, this one too,
/// and not acknowledged for too long. Each belongs to this worker from now on, and its idle time starts anew,
/// so that no two workers take over the same entry. Redis looks at a part of what is pending and says where
/// to go on; after the end that is `0-0`, the beginning.
async fn take_over(redis: &Client, settings: &Settings, cursor: &mut String) -> Result<Vec<Entry>, fred::error::Error> {
    let Settings { stream, group, name, idle_ms, batch, .. } = settings;
    let (next, entries): (String, Vec<Entry>) =
        redis.xautoclaim_values(stream, group, name, *idle_ms, cursor.as_str(), Some(*batch), false).await?;
    *cursor = next;
    if !entries.is_empty() {
        eprintln!("{name} takes over {} entries", entries.len());
    }
    Ok(entries)
}

/// `XREADGROUP GROUP group name COUNT n BLOCK 1000 STREAMS stream >`: entries that no worker of the group was
/// given yet. After a second without any it is time to look for some to take over.
async fn read_new(redis: &Client, settings: &Settings) -> Result<Vec<Entry>, fred::error::Error> {
    let Settings { stream, group, name, batch, .. } = settings;
    let reply: fred::types::Value = redis.xreadgroup(group, name, Some(*batch), Some(1000), false, stream, ">").await?;
    if reply.is_null() {
        return Ok(Vec::new());
    }
    let mut streams: HashMap<String, Vec<Entry>> = reply.into_xread_response()?;
    Ok(streams.remove(stream).unwrap_or_default())
}

/// Whether an entry is done with and is to be acknowledged.
async fn handle(settings: &Settings, id: &str, fields: &Fields) -> Result<bool, Box<dyn Error>> {
    // The stream holds other events too: connect, login, close, dealt. They are none of these workers'
    // business, but they are acknowledged, or they would be given out again and again.
    if fields.get("event").is_none_or(|event| event != "call") {
        return Ok(true);
    }
    let (Some(shop), Some(conn), Some(method)) = (fields.get("shop"), fields.get("conn"), fields.get("method")) else {
        eprintln!("{id} is a call without shop, conn or method, and is skipped");
        return Ok(true);
    };
    tokio::time::sleep(settings.delay).await;
    // `ref` and `data` are there if the device gave them. A ref is text here, even where it was a number.
    let data = fields.get("data").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let (reference, by) = (fields.get("ref"), &settings.name);
    let answer = match perform(method, &data) {
        Ok(result) => json!({"ref": reference, "by": by, "result": result}),
        Err(error) => json!({"ref": reference, "by": by, "error": error}),
    };
    // A signal goes to whom is there now and to nobody else, which is right: only the connection that
    // called waits for the answer. If it has gone meanwhile the API accepts the signal all the same.
    let body = json!({"to": {"conns": [conn]}, "type": "answer", "data": answer});
    let path = format!("/v1/shops/{}/messages", utf8_percent_encode(shop, NON_ALPHANUMERIC));
    for _ in 0..TRIES {
        let wait = match post(settings, &path, &body).await {
            Ok(Posted { status, .. }) if status.is_success() => return Ok(true),
            // The same key is refused the next time, and every other call with it.
            Ok(Posted { status: status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN), .. }) => {
                return Err(format!("the API at {} answers {status}: check API_KEY", settings.api).into());
            }
            // Not now: 503 while the relay has lost its store, 429 when the shop sends too much.
            Ok(Posted { status, retry_after }) if status.is_server_error() || status.as_u16() == 429 => {
                eprintln!("the API answers {status}; {id} is tried again in {retry_after:?}");
                retry_after
            }
            // This answer will never be taken, so that to try it for ever would help nobody.
            Ok(Posted { status, .. }) => {
                eprintln!("the API refuses the answer to {id} with {status}, and it is skipped");
                return Ok(true);
            }
            Err(cause) => {
                eprintln!("the API at {} cannot be reached: {cause}; {id} is tried again", settings.api);
                Duration::from_secs(1)
            }
        };
        tokio::time::sleep(wait).await;
    }
    // Not acknowledged: whichever worker looks for idle entries after IDLE_MS tries again.
    Ok(false)
}

/// What the API said to a request.
struct Posted {
    status: StatusCode,
    /// When to try again, if at all.
    retry_after: Duration,
}

/// `POST`s JSON, on a connection of its own: any HTTP client does this in one line.
async fn post(settings: &Settings, path: &str, body: &Value) -> Result<Posted, Box<dyn Error>> {
    let mut request = Request::post(path).header("host", &settings.api).header("content-type", "application/json");
    if let Some(key) = &settings.api_key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let request = request.body(Full::new(Bytes::from(body.to_string())))?;
    let exchange = async {
        let stream = TcpStream::connect(&settings.api).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok::<_, Box<dyn Error>>(sender.send_request(request).await?)
    };
    let response = tokio::time::timeout(API_WAIT, exchange).await??;
    let seconds = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    Ok(Posted { status: response.status(), retry_after: Duration::from_secs(seconds.unwrap_or(1)) })
}
