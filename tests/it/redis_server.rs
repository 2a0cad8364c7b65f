//! A real Redis for the tests, alone, in a cluster or watched over by sentinels; a proxy that misbehaves in
//! front of it, and patience.

pub mod cluster;
pub mod sentinels;

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// How long a server may take to start or to stop.
const SERVER_MAX: Duration = Duration::from_secs(20);

/// Runs the server, and ends it as soon as this process is gone: its end closes the pipe.
const KEEPER: &str = r#"redis-server "$@" & server=$!; cat > /dev/null; kill -9 $server; wait $server"#;

/// A `redis-server` of its own, ended when dropped.
pub struct RedisServer {
    dir: TempDir,
    port: u16,
    options: Vec<String>,
    /// What a sentinel is given instead of options; it writes its state there.
    sentinel: Option<String>,
    keeper: Mutex<Option<Child>>,
    /// The server's own process id.
    process: AtomicU64,
}

impl RedisServer {
    /// An empty server that keeps nothing on disk.
    pub async fn start() -> RedisServer {
        RedisServer::start_with(&[]).await
    }

    /// The same with further options, as on its command line.
    pub async fn start_with(options: &[&str]) -> RedisServer {
        RedisServer::launch(options)
    }

    /// A sentinel with these settings, a line each.
    fn sentinel(settings: &str) -> RedisServer {
        RedisServer::launch_as(&[], Some(settings))
    }

    /// The server that most tests share; each takes a prefix of its own, see [`fresh_prefix`].
    pub fn shared() -> &'static RedisServer {
        static SHARED: LazyLock<RedisServer> = LazyLock::new(|| RedisServer::launch(&[]));
        &SHARED
    }

    fn launch(options: &[&str]) -> RedisServer {
        RedisServer::launch_as(options, None)
    }

    fn launch_as(options: &[&str], sentinel: Option<&str>) -> RedisServer {
        let options: Vec<String> = options.iter().map(|option| option.to_string()).collect();
        for _ in 0..10 {
            // Somebody else may take the port before the server does; then it is tried with another.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let dir = TempDir::with_prefix("shoprelay-redis-").unwrap();
            let server = RedisServer {
                dir,
                port,
                options: options.clone(),
                sentinel: sentinel.map(str::to_owned),
                keeper: Mutex::new(None),
                process: AtomicU64::new(0),
            };
            if server.run() {
                return server;
            }
        }
        panic!("no port could be bound ten times in a row");
    }

    /// Starts the process; false where the port is taken.
    fn run(&self) -> bool {
        let log = self.dir.path().join("log");
        // The restart of a killed server is not to read what the first one wrote.
        let _ = std::fs::remove_file(&log);
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "sh"]);
        match &self.sentinel {
            Some(settings) => {
                command.arg(self.sentinel_file(settings)).arg("--sentinel");
            }
            None => {
                command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
                if !self.options.iter().any(|option| option == "--appendonly") {
                    command.args(["--appendonly", "no"]);
                }
                command.arg("--dir").arg(self.dir.path()).arg("--unixsocket").arg(self.socket());
                command.arg("--logfile").arg(&log).args(&self.options);
            }
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let keeper = command.spawn().expect("sh is there");
        *self.keeper.lock().unwrap() = Some(keeper);
        let began = Instant::now();
        while began.elapsed() < SERVER_MAX {
            if self.try_cli(&["PING"]).is_ok_and(|output| output.stdout == b"PONG\n") {
                let info = self.cli(&["INFO", "server"]);
                let process = info.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap();
                self.process.store(process.trim().parse().unwrap(), Ordering::SeqCst);
                return true;
            }
            if std::fs::read_to_string(&log).is_ok_and(|log| log.contains("Could not create server TCP listening")) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        panic!("redis-server does not answer; its log: {log}");
    }

    /// The settings file of a sentinel, as it left it or new.
    fn sentinel_file(&self, settings: &str) -> PathBuf {
        let (dir, file) = (self.dir.path().display(), self.dir.path().join("sentinel.conf"));
        if !file.exists() {
            let own =
                format!("port {}\nbind 127.0.0.1\ndir {dir}\nlogfile {dir}/log\nunixsocket {dir}/socket\n", self.port);
            std::fs::write(&file, format!("{own}{settings}")).unwrap();
        }
        file
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn unix_url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// What `redis-cli` prints, without the newline at the end.
    pub fn cli(&self, args: &[&str]) -> String {
        let output = self.try_cli(args).unwrap();
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Runs a script of `lua/` and gives its reply, or the server's error.
    pub fn script(&self, name: &str, keys: &[&str], args: &[&str]) -> Result<serde_json::Value, String> {
        let path = format!("{}/lua/{name}.lua", env!("CARGO_MANIFEST_DIR"));
        self.eval(&std::fs::read_to_string(&path).unwrap(), keys, args)
    }

    /// Runs a script of this text, as [`RedisServer::script`].
    pub fn eval(&self, text: &str, keys: &[&str], args: &[&str]) -> Result<serde_json::Value, String> {
        let count = keys.len().to_string();
        let output = self.try_cli(&[&["--json", "-e", "EVAL", text, &count], keys, args].concat()).unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            return Err(format!("{printed}{}", String::from_utf8_lossy(&output.stderr)));
        }
        Ok(serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}")))
    }

    fn try_cli(&self, args: &[&str]) -> io::Result<Output> {
        match Command::new("redis-cli").arg("-s").arg(self.socket()).args(args).output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                panic!("the tests need redis-server and redis-cli 7: apt-get install redis-server")
            }
            output => output,
        }
    }

    /// Stops the process where it stands: connections stay, nothing is answered.
    pub fn pause(&self) {
        self.send_signal("-STOP");
    }

    pub fn resume(&self) {
        self.send_signal("-CONT");
    }

    fn send_signal(&self, signal: &str) {
        let server = self.process.load(Ordering::SeqCst).to_string();
        let status = Command::new("kill").args([signal, &server]).status().unwrap();
        assert!(status.success(), "no server was there to be sent {signal}");
    }

    /// Ends the process as a crash would.
    pub fn kill(&self) {
        let Some(mut keeper) = self.keeper.lock().unwrap().take() else {
            return;
        };
        drop(keeper.stdin.take());
        keeper.wait().unwrap();
    }

    /// Starts it again on the same port.
    pub fn restart(&self) {
        assert!(self.run(), "port {} was taken meanwhile", self.port);
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A prefix that no other test uses.
pub fn fresh_prefix() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("t{}-{}:", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Asks until the answer is yes; fails after the deadline.
pub async fn eventually<F: Future<Output = bool>>(deadline: Duration, what: &str, mut is_so: impl FnMut() -> F) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < deadline, "not within {deadline:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Stands between a client and the server, and loses what it is told to lose.
pub struct Proxy {
    port: u16,
    lines: Arc<Mutex<Vec<Arc<Line>>>>,
    /// The connection that sends this next gets no answer, and is cut once there was one.
    cut_after: Arc<Mutex<Option<&'static str>>>,
    listener: JoinHandle<()>,
}

/// A proxied connection.
#[derive(Default)]
struct Line {
    is_subscriber: AtomicBool,
    /// Nothing of what the server sends arrives.
    is_deaf: AtomicBool,
    /// The server's next bytes are lost, and the connection with them.
    is_doomed: AtomicBool,
}

impl Proxy {
    pub async fn start(target: u16) -> Proxy {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let lines: Arc<Mutex<Vec<Arc<Line>>>> = Arc::default();
        let cut_after: Arc<Mutex<Option<&'static str>>> = Arc::default();
        let (all, cut) = (lines.clone(), cut_after.clone());
        let listener = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else {
                    continue;
                };
                let line = Arc::new(Line::default());
                all.lock().unwrap().push(line.clone());
                tokio::spawn(carry(client, server, line, cut.clone()));
            }
        });
        Proxy { port, lines, cut_after, listener }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From now on nothing arrives on the subscriber connections that are there now.
    pub fn deafen_subscribers(&self) {
        let lines = self.lines.lock().unwrap();
        let subscribers: Vec<_> = lines.iter().filter(|line| line.is_subscriber.load(Ordering::SeqCst)).collect();
        assert!(!subscribers.is_empty(), "nobody has subscribed");
        for line in subscribers {
            line.is_deaf.store(true, Ordering::SeqCst);
        }
    }

    /// The answer to the next request that holds this word is lost, and the connection with it.
    pub fn lose_answer_to(&self, word: &'static str) {
        *self.cut_after.lock().unwrap() = Some(word);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn carry(client: TcpStream, server: TcpStream, line: Arc<Line>, cut_after: Arc<Mutex<Option<&'static str>>>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let seen = line.clone();
    let upward = async move {
        let mut buffer = vec![0; 65536];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            let bytes = &buffer[..count];
            let holds = |word: &str| bytes.windows(word.len()).any(|window| window == word.as_bytes());
            if holds("SSUBSCRIBE") {
                seen.is_subscriber.store(true, Ordering::SeqCst);
            }
            let is_hit = cut_after.lock().unwrap().take_if(|word| holds(word)).is_some();
            if is_hit {
                seen.is_doomed.store(true, Ordering::SeqCst);
            }
            if to_server.write_all(bytes).await.is_err() {
                return;
            }
        }
    };
    let downward = async move {
        let mut buffer = vec![0; 65536];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            if line.is_doomed.load(Ordering::SeqCst) {
                return;
            }
            if line.is_deaf.load(Ordering::SeqCst) {
                continue;
            }
            if to_client.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = upward => {}
        () = downward => {}
    }
}
