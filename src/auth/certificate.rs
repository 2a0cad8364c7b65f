//! What a client certificate says of its device.
//!
//! Owns the rule by which a certificate names a shop and a device. Never decides whether a certificate is
//! to be trusted: the handshake has, and [`super::Tls`] does again. Used by the devices' door.

use std::sync::atomic::AtomicU64;

use percent_encoding::percent_decode_str;
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::x509::AttributeTypeAndValue;

use crate::ids::{DeviceId, IdError, ShopId};

/// What a SAN URI for the relay begins with; as in every URI, case does not matter.
const SCHEME: &str = "shoprelay://";

/// Why a certificate names no device; the message is for the device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unnamed {
    #[error("the certificate names no device; it needs the SAN URI {SCHEME}<shop>/<device>, or one O and one CN")]
    Absent,
    #[error("the certificate has several SAN URIs that begin with {SCHEME}; it may have one")]
    Several,
    #[error("the certificate's SAN URI is not {SCHEME}<shop>/<device> with both parts percent-encoded")]
    Uri,
    #[error("a name in the certificate {0}")]
    Name(IdError),
}

/// A client certificate that the handshake found good.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The certificate itself, then what leads to an authority.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// The trust that last found it good.
    pub(super) trusted_by: AtomicU64,
    names: Result<(ShopId, DeviceId), Unnamed>,
    expires_at_s: u64,
}

impl ClientCertificate {
    /// Reads a chain, whose first certificate is the device's. None where that cannot be read.
    pub(super) fn read(chain: &[CertificateDer<'_>], trusted_by: u64) -> Option<ClientCertificate> {
        let (_, certificate) = parse_x509_certificate(chain.first()?).ok()?;
        let last_s = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        Some(ClientCertificate {
            names: names(&certificate),
            // It is good for the whole of its last second.
            expires_at_s: last_s.saturating_add(1),
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
            trusted_by: AtomicU64::new(trusted_by),
        })
    }

    /// Whom it names.
    ///
    /// # Errors
    /// It names nobody, or nobody clearly.
    pub fn names(&self) -> Result<&(ShopId, DeviceId), Unnamed> {
        self.names.as_ref().map_err(Clone::clone)
    }

    /// From when on it is no longer good, in seconds since 1970.
    pub fn expires_at_s(&self) -> u64 {
        self.expires_at_s
    }
}

/// By the SAN URI where there is one, good or bad, else by the subject.
fn names(certificate: &X509Certificate<'_>) -> Result<(ShopId, DeviceId), Unnamed> {
    let alternatives = certificate.subject_alternative_name().map_err(|_| Unnamed::Uri)?;
    let mut uris = Vec::new();
    for name in alternatives.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::URI(uri) => uris.extend(stripped(uri)),
            GeneralName::Invalid(..) => return Err(Unnamed::Uri),
            _ => {}
        }
    }
    match uris[..] {
        [] => {
            let subject = certificate.subject();
            let shop = only(subject.iter_organization()).ok_or(Unnamed::Absent)?;
            let device = only(subject.iter_common_name()).ok_or(Unnamed::Absent)?;
            parsed(shop, device)
        }
        [uri] => {
            let (shop, device) = uri.split_once('/').ok_or(Unnamed::Uri)?;
            let decoded = decoded(shop).zip(decoded(device));
            let (shop, device) = decoded.ok_or(Unnamed::Uri)?;
            parsed(&shop, &device)
        }
        _ => Err(Unnamed::Several),
    }
}

/// What follows the scheme, where it is the relay's.
fn stripped(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(rest)
}

/// The text of the only attribute.
fn only<'a>(mut attributes: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> Option<&'a str> {
    let first = attributes.next()?;
    if attributes.next().is_some() {
        return None;
    }
    first.as_str().ok()
}

fn decoded(part: &str) -> Option<String> {
    // The decoder takes a percent sign that begins no escape for itself; a name should have one spelling.
    let mut escapes = part.split('%').skip(1).map(str::as_bytes);
    let is_escaped = escapes.all(|rest| rest.get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)));
    if !is_escaped || part.contains(['/', '?', '#']) {
        return None;
    }
    percent_decode_str(part).decode_utf8().ok().map(|text| text.into_owned())
}

fn parsed(shop: &str, device: &str) -> Result<(ShopId, DeviceId), Unnamed> {
    Ok((shop.parse().map_err(Unnamed::Name)?, device.parse().map_err(Unnamed::Name)?))
}

#[cfg(test)]
mod tests;
