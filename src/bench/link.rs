//! One connection to a relay, plain or by TLS: a socket that does not block, and what it could not take yet.
//!
//! Owns the bytes that wait to be written, and the trust in certificates. Never waits and never looks into what it carries. Used by
//! [`mod@super::worker`].

use std::fmt::Display;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::plan::Target;

/// Connections from one loopback address. It has 28,000 ports, of which those of closed connections rest for a
/// minute, and the fewer are free the longer the system looks for one: with 10,000 from each address the next run
/// within the minute got 283 connections a second instead of 4,600.
const PER_SOURCE: usize = 1_000;
/// Bytes that may wait for a peer that does not read.
const UNSENT_MAX: usize = 1 << 20;

/// What connections by TLS share.
#[derive(Debug, Clone)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Trusts the authorities of this file, or the system's.
    ///
    /// # Errors
    /// Where there are none.
    pub fn new(ca: Option<&Path>) -> Result<Tls, String> {
        let mut roots = RootCertStore::empty();
        match ca {
            Some(path) => {
                let unreadable = |error: &dyn Display| format!("--tls-ca {}: {error}", path.display());
                for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
                    let certificate = certificate.map_err(|error| unreadable(&error))?;
                    roots.add(certificate).map_err(|error| unreadable(&error))?;
                }
            }
            None => {
                // One that cannot be read does not spoil the others.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        if roots.is_empty() {
            return Err("there is no authority to vouch for a certificate; name one with --tls-ca".into());
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be spoken: {error}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Tls(Arc::new(config)))
    }
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A connection, once it is there.
#[derive(Debug)]
pub struct Link {
    stream: Stream,
    unsent: Vec<u8>,
}

impl Link {
    /// Begins to connect. To a loopback address the `nth` connection of a worker comes from an address of its
    /// own, so that ports do not run out.
    ///
    /// # Errors
    /// Where no socket can be had, or the other end refuses at once.
    pub fn connect(target: &Target, tls: Option<&Tls>, worker: usize, nth: usize) -> io::Result<Link> {
        let socket = Socket::new(Domain::for_address(target.address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        if target.address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            // The next run has addresses of its own, by the number of its process.
            let process = (std::process::id() as usize + worker) % (200 * 250);
            let (second, fourth) = (1 + process % 200, 1 + process / 200);
            let source = Ipv4Addr::new(127, second as u8, 1 + (nth / PER_SOURCE % 250) as u8, fourth as u8);
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        match socket.connect(&target.address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        socket.set_tcp_nodelay(true)?;
        let stream = match (&target.tls_name, tls) {
            (Some(name), Some(Tls(config))) => {
                let name = ServerName::try_from(name.clone()).map_err(io::Error::other)?;
                let tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
                Stream::Tls(Box::new(StreamOwned::new(tls, socket.into())))
            }
            _ => Stream::Plain(socket.into()),
        };
        Ok(Link { stream, unsent: Vec::new() })
    }

    /// Whether it is by TLS, which may hold bytes that the socket does not have any more.
    pub fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    fn socket(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(tls) => &tls.sock,
        }
    }

    /// What became of connecting, once the socket is writable.
    ///
    /// # Errors
    /// Why it failed.
    pub fn connected(&self) -> io::Result<()> {
        self.socket().take_error()?.map_or(Ok(()), Err)
    }

    /// Reads what there is; None where there is nothing, and 0 at the end.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            let count = match &mut self.stream {
                Stream::Plain(socket) => socket.read(buffer),
                Stream::Tls(tls) => tls.read(buffer),
            };
            match count {
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes, and keeps what the socket does not take.
    ///
    /// # Errors
    /// Those of the socket, and where far too much waits.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.unsent.is_empty() {
            if self.unsent.len() > UNSENT_MAX {
                return Err(io::Error::new(ErrorKind::TimedOut, "the relay does not read what is sent"));
            }
            self.unsent.extend_from_slice(bytes);
            return self.flush();
        }
        let taken = self.take(bytes)?;
        self.unsent.extend_from_slice(bytes.get(taken..).unwrap_or_default());
        Ok(())
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Stream::Tls(tls) = &mut self.stream {
            match tls.flush() {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        let unsent = std::mem::take(&mut self.unsent);
        let taken = self.take(&unsent)?;
        self.unsent = unsent.get(taken..).unwrap_or_default().to_vec();
        Ok(())
    }

    /// Whether something waits until the socket takes more. In a handshake of TLS what waits does so for the
    /// other end.
    pub fn is_blocked(&self) -> bool {
        match &self.stream {
            Stream::Plain(_) => self.has_unsent(),
            Stream::Tls(tls) => tls.conn.wants_write(),
        }
    }

    /// Whether something waits to be written, for whatever reason.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Ends it at once, so that its port is free again.
    pub fn reset(self) {
        // Where it fails the connection just ends the usual way.
        let _ = SockRef::from(self.socket()).set_linger(Some(std::time::Duration::ZERO));
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            let count = match &mut self.stream {
                Stream::Plain(socket) => socket.write(rest),
                Stream::Tls(tls) => tls.write(rest),
            };
            match count {
                Ok(count) => taken += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}
