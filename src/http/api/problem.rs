//! Answers: JSON, nothing, or a problem document (RFC 9457).

use std::time::Duration;

use hyper::header::{ALLOW, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};
use serde::Serialize;

use crate::http::{Reply, reply};
use crate::ids::Name;
use crate::message::Origin;
use crate::protocol::ErrorCode;
use crate::session::Failure;

/// The media type of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// When to try again where there was no room.
const FULL_WAIT: Duration = Duration::from_secs(1);

/// Why a request was not done.
#[derive(Debug, Clone)]
pub struct Problem {
    pub status: StatusCode,
    pub code: &'static str,
    pub detail: String,
    pub retry_after: Option<Duration>,
    /// Of a conflict: the present status, and who set it.
    pub present: Option<Box<(Name, Option<Origin>)>>,
    /// The methods there are, where the method was wrong.
    allowed: Vec<Method>,
}

impl Problem {
    fn new(status: StatusCode, code: ErrorCode, detail: impl Into<String>) -> Problem {
        let (detail, code) = (detail.into(), code.as_str());
        Problem { status, code, detail, retry_after: None, present: None, allowed: Vec::new() }
    }

    pub fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, ErrorCode::BadRequest, detail)
    }

    pub fn unauthorized(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, detail)
    }

    pub fn forbidden(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, detail)
    }

    pub fn wrong_method(allowed: Vec<Method>) -> Problem {
        let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
        let detail = format!("this path takes {}", names.join(", "));
        Problem { allowed, ..Problem::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::BadRequest, detail) }
    }

    pub fn wrong_media_type(expected: &str) -> Problem {
        let detail = format!("send the body as Content-Type: {expected}");
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::BadRequest, detail)
    }

    pub fn too_late(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::BadRequest, detail)
    }

    /// The one code that only HTTP has.
    pub fn too_large(limit: usize) -> Problem {
        let detail = format!("the body is larger than {limit} bytes (limits.frame_bytes)");
        let problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::BadRequest, detail);
        Problem { code: "too_large", ..problem }
    }

    pub fn full(detail: impl Into<String>) -> Problem {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, detail);
        Problem { retry_after: Some(FULL_WAIT), ..problem }
    }

    /// What the relay itself cannot answer for.
    pub fn internal(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Internal, detail)
    }

    /// The document, which names the request so that it is found in the log.
    pub fn reply(&self, request_id: &str) -> Reply {
        #[derive(Serialize)]
        struct Document<'a> {
            r#type: &'static str,
            title: &'a str,
            status: u16,
            code: &'a str,
            detail: &'a str,
            request_id: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            present: Option<&'a Name>,
            #[serde(skip_serializing_if = "Option::is_none")]
            by: Option<&'a Origin>,
        }
        let (present, by) = match self.present.as_deref() {
            Some((present, by)) => (Some(present), by.as_ref()),
            None => (None, None),
        };
        let document = Document {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            request_id,
            present,
            by,
        };
        // Names and texts can always be written.
        let mut reply = reply(self.status, PROBLEM_JSON, serde_json::to_vec(&document).unwrap_or_default());
        let headers = reply.headers_mut();
        if let Some(wait) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil().max(1.0) as u64));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let allowed: Vec<&str> = self.allowed.iter().map(Method::as_str).collect();
        if let Ok(allowed) = HeaderValue::from_str(&allowed.join(", "))
            && !self.allowed.is_empty()
        {
            headers.insert(ALLOW, allowed);
        }
        reply
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Problem {
        let status = match failure.code {
            ErrorCode::BadRequest | ErrorCode::UnknownOp | ErrorCode::NotLoggedIn | ErrorCode::AlreadyLoggedIn => {
                StatusCode::BAD_REQUEST
            }
            ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorCode::Forbidden => StatusCode::FORBIDDEN,
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::Conflict | ErrorCode::NoMainDevice => StatusCode::CONFLICT,
            ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::Unavailable | ErrorCode::BacklogFull => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let (retry_after, present) = (failure.retry_after, failure.present.map(Box::new));
        Problem { retry_after, present, ..Problem::new(status, failure.code, failure.message) }
    }
}

/// A JSON answer.
///
/// # Errors
/// Where the value cannot be written, which is the relay's own fault.
pub fn json(status: StatusCode, value: &impl Serialize) -> Result<Reply, Problem> {
    let body = serde_json::to_vec(value).map_err(|_| Problem::internal("the answer cannot be written"))?;
    Ok(reply(status, "application/json", body))
}

/// The answer to what is done and leaves nothing to tell.
pub fn no_content() -> Reply {
    let mut reply = Reply::default();
    *reply.status_mut() = StatusCode::NO_CONTENT;
    reply
}
