//! Redis replies, read just enough to know where each ends and which are pushes of a sharded channel.

/// The length of the first whole reply in `bytes`; nothing where it is not whole yet.
///
/// # Panics
/// Where the bytes are no RESP 2 or 3.
pub fn reply_len(bytes: &[u8]) -> Option<usize> {
    let (line, mut at) = line(bytes)?;
    let (kind, rest) = line.split_first().expect("a reply has a type");
    match kind {
        b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => Some(at),
        b'$' | b'!' | b'=' => match number(rest) {
            -1 => Some(at),
            len => Some(at + len as usize + 2).filter(|end| *end <= bytes.len()),
        },
        b'*' | b'~' | b'>' | b'%' | b'|' => {
            let count = number(rest).max(0) * if matches!(kind, b'%' | b'|') { 2 } else { 1 };
            // An attribute comes before the reply that it belongs to.
            for _ in 0..count + i64::from(*kind == b'|') {
                at += reply_len(&bytes[at..])?;
            }
            Some(at)
        }
        other => panic!("no RESP type: {:?}", char::from(*other)),
    }
}

/// A message of a sharded channel.
#[derive(Debug, PartialEq, Eq)]
pub struct Push<'a> {
    pub channel: &'a [u8],
    pub payload: &'a [u8],
}

/// The push in a whole reply; nothing where it is something else.
pub fn sharded_push(reply: &[u8]) -> Option<Push<'_>> {
    if !reply.starts_with(b"*3\r\n") && !reply.starts_with(b">3\r\n") {
        return None;
    }
    let (kind, at) = bulk(reply, 4)?;
    if kind != b"smessage" {
        return None;
    }
    let (channel, at) = bulk(reply, at)?;
    let (payload, _) = bulk(reply, at)?;
    Some(Push { channel, payload })
}

fn bulk(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (header, len) = line(bytes.get(at..)?)?;
    let size = usize::try_from(number(header.strip_prefix(b"$")?)).ok()?;
    let start = at + len;
    Some((bytes.get(start..start + size)?, start + size + 2))
}

/// The first line without its end, and its length with it.
fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[..end], end + 2))
}

fn number(digits: &[u8]) -> i64 {
    let text = String::from_utf8_lossy(digits);
    text.parse().unwrap_or_else(|_| panic!("no number in a reply: {text:?}"))
}

#[test]
fn replies_are_cut_where_they_end() {
    let replies: [&[u8]; 8] = [
        b"+OK\r\n",
        b"$-1\r\n",
        b"$4\r\na\r\nb\r\n",
        b"*2\r\n:1\r\n*1\r\n$1\r\nx\r\n",
        b"%1\r\n+a\r\n:1\r\n",
        b">3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n",
        b"|1\r\n+ttl\r\n:3\r\n+OK\r\n",
        b"_\r\n",
    ];
    for reply in replies {
        for cut in 0..reply.len() {
            assert_eq!(reply_len(&reply[..cut]), None, "{reply:?} cut at {cut}");
        }
        assert_eq!(reply_len(&[reply, b"+next\r\n"].concat()), Some(reply.len()));
    }
    assert_eq!(sharded_push(replies[5]), Some(Push { channel: b"c", payload: b"hi" }));
    assert_eq!(sharded_push(b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n"), None);
    assert_eq!(sharded_push(b"*3\r\n$10\r\nssubscribe\r\n$1\r\nc\r\n:1\r\n"), None);
}
