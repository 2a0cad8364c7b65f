//! The floor: the least that a push can cost on this machine.
//!
//! Owns a bare loop that writes finished frames: for each frame of a publisher one to every socket of its
//! shop, with nothing but the mark copied. It parses nothing, queues nothing, stores nothing, checks nothing
//! and proves nothing, and is no server for anything else. Every figure is given beside the floor's, for the
//! machine may be twice as fast an hour later. Started by [`super::crew`] on the cores of the relay.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};

use super::plan::Encoding;
use super::poll::{Poll, Ready};
use super::sockets_allowed;
use super::wire::Template;

/// Bytes of a [`Hello`].
pub const HELLO_BYTES: usize = 12;
/// Digits of a mark.
const DIGITS: usize = 24;
/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;
const INPUT: usize = usize::MAX - 1;
const LISTENER: usize = usize::MAX - 2;

/// What the floor is told in its first line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FloorJob {
    pub encoding: Encoding,
    pub order_bytes: usize,
    /// The cores it runs on; all of its parent's where there are none.
    pub cores: Vec<usize>,
}

/// What the floor answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FloorWord {
    Listening(SocketAddr),
    Failed { why: String },
}

/// What a connection says first, and all it ever says but for a publisher's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    pub shop: u32,
    /// A publisher's frames: how many bytes each has, and where the digits of its mark are. None for who listens.
    pub frame: Option<(u32, u32)>,
}

impl Hello {
    pub fn to_bytes(self) -> [u8; HELLO_BYTES] {
        let (len, digits_at) = self.frame.unwrap_or_default();
        let mut bytes = [0; HELLO_BYTES];
        let numbers = [self.shop, len, digits_at].into_iter().flat_map(u32::to_le_bytes);
        bytes.iter_mut().zip(numbers).for_each(|(place, byte)| *place = byte);
        bytes
    }

    fn of(bytes: &[u8]) -> Option<Hello> {
        let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let (shop, len, digits_at) = (number(0)?, number(4)?, number(8)?);
        Some(Hello { shop, frame: (len > 0).then_some((len, digits_at)) })
    }
}

/// Serves until standard input ends.
pub fn run() {
    let mut line = String::new();
    let job = io::stdin().read_line(&mut line).ok().and_then(|_| serde_json::from_str::<FloorJob>(&line).ok());
    // Whoever starts it by hand and says nothing gets nothing.
    let Some(job) = job else { return };
    let served = Floor::new(&job).and_then(Floor::serve);
    if let Err(error) = served {
        say(&FloorWord::Failed { why: error.to_string() });
    }
}

struct Socket {
    stream: TcpStream,
    hello: Option<Hello>,
    /// The beginning of something whose end has not come.
    rest: Vec<u8>,
}

struct Floor {
    poll: Poll,
    listener: TcpListener,
    sockets: Vec<Option<Socket>>,
    shops: HashMap<u32, Vec<usize>>,
    template: Template,
    buffer: Vec<u8>,
}

impl Floor {
    fn new(job: &FloorJob) -> io::Result<Floor> {
        sockets_allowed();
        if !job.cores.is_empty() {
            let mut cores = CpuSet::new();
            job.cores.iter().filter(|core| **core < CpuSet::MAX_CPU).for_each(|core| cores.set(*core));
            sched_setaffinity(None, &cores)?;
        }
        let template = Template::message(job.encoding.into(), job.order_bytes)
            .ok_or_else(|| io::Error::other("no order can be made"))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let poll = Poll::new()?;
        poll.add(&listener, LISTENER, false)?;
        poll.add(io::stdin(), INPUT, false)?;
        say(&FloorWord::Listening(listener.local_addr()?));
        Ok(Floor { poll, listener, sockets: Vec::new(), shops: HashMap::new(), template, buffer: vec![0; READ_BYTES] })
    }

    fn serve(mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        loop {
            ready.clear();
            self.poll.wait(u64::MAX, &mut ready)?;
            for event in &ready {
                match *event {
                    Ready { token: INPUT, .. } => {
                        if rustix::io::read(io::stdin(), &mut [0; 64])? == 0 {
                            return Ok(());
                        }
                    }
                    Ready { token: LISTENER, .. } => self.accept()?,
                    Ready { token, .. } => self.on_readable(token),
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            self.poll.add(&stream, self.sockets.len(), false)?;
            self.sockets.push(Some(Socket { stream, hello: None, rest: Vec::new() }));
        }
    }

    fn on_readable(&mut self, token: usize) {
        let Some(mut socket) = self.sockets.get_mut(token).and_then(Option::take) else { return };
        let mut buffer = std::mem::take(&mut self.buffer);
        let is_there = match socket.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.on_bytes(token, &mut socket, buffer.get(..count).unwrap_or_default());
                true
            }
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        self.buffer = buffer;
        if let (true, Some(place)) = (is_there, self.sockets.get_mut(token)) {
            *place = Some(socket);
        }
    }

    fn on_bytes(&mut self, token: usize, socket: &mut Socket, bytes: &[u8]) {
        socket.rest.extend_from_slice(bytes);
        if socket.hello.is_none()
            && let Some(hello) = Hello::of(&socket.rest)
        {
            socket.rest.drain(..HELLO_BYTES);
            socket.hello = Some(hello);
            if hello.frame.is_none() {
                self.shops.entry(hello.shop).or_default().push(token);
            }
        }
        let Some(Hello { shop, frame: Some((len, digits_at)) }) = socket.hello else {
            if socket.hello.is_some() {
                socket.rest.clear();
            }
            return;
        };
        let (len, digits_at) = (len as usize, digits_at as usize);
        let mut frames = socket.rest.chunks_exact(len);
        for frame in &mut frames {
            let finished = self.template.stamped(frame.get(digits_at..digits_at + DIGITS).unwrap_or_default());
            for receiver in self.shops.get(&shop).into_iter().flatten() {
                if let Some(Some(receiver)) = self.sockets.get(*receiver) {
                    // What a socket does not take is lost: a queue would be more than the floor.
                    let _ = (&receiver.stream).write(finished);
                }
            }
        }
        socket.rest = frames.remainder().to_vec();
    }
}

fn say(word: &FloorWord) {
    if let Ok(line) = serde_json::to_string(word) {
        // Where the parent is gone there is nobody to tell.
        let _ = writeln!(io::stdout(), "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_read_as_it_was_written() {
        for hello in [Hello { shop: 7, frame: None }, Hello { shop: 8, frame: Some((420, 97)) }] {
            assert_eq!(Hello::of(&hello.to_bytes()), Some(hello));
        }
        assert_eq!(Hello::of(&[0; HELLO_BYTES - 1]), None);
    }
}
