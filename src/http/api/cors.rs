//! Browsers: which origins may call the API (the CORS protocol of the Fetch standard).

use hyper::Method;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, HeaderMap, HeaderValue, ORIGIN, VARY,
};

use crate::config::Origins;
use crate::http::api::problem::Problem;

/// The origins that may call the API from a browser; none unless somebody configures them.
pub struct Cors(Origins);

impl Cors {
    /// For these origins.
    pub fn new(origins: Origins) -> Cors {
        Cors(origins)
    }

    /// Whether there is any.
    pub fn is_on(&self) -> bool {
        !matches!(&self.0, Origins::Only(origins) if origins.is_empty())
    }

    /// Refuses what a page of another origin has a browser change: it would be done although the page
    /// never sees the answer.
    ///
    /// # Errors
    /// [`Problem::forbidden`]
    pub fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
        let is_safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        match headers.get(ORIGIN) {
            Some(origin) if !is_safe && !self.allows(origin) => {
                Err(Problem::forbidden("pages of this origin may not call the API; see the setting cors_origins"))
            }
            _ => Ok(()),
        }
    }

    /// Tells the browser what it may show the page.
    pub fn add_headers(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if !self.is_on() {
            return;
        }
        headers.append(VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = origin.filter(|origin| self.allows(origin)) else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        for (name, value) in [
            (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PUT, PATCH, DELETE"),
            (ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type, Idempotency-Key, X-Request-Id"),
            (ACCESS_CONTROL_EXPOSE_HEADERS, "Location, Retry-After, X-Request-Id"),
            (ACCESS_CONTROL_MAX_AGE, "600"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        match &self.0 {
            Origins::Any => true,
            Origins::Only(origins) => origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()),
        }
    }
}
