//! Letting a device in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::debug;

use crate::auth::{ClientCertificate, Refusal};
use crate::events::Events;
use crate::hub::RoomGuard;
use crate::ids::{ConnId, unix_ms};
use crate::metrics::{self, LoginResult};
use crate::protocol::{ErrorCode, Login, Token};
use crate::relay::Relay;
use crate::session::{Failure, Grant, Welcome};
use crate::store::{Admission, Connect, Event, EventKind};

/// Who wants to come in, and by which connection.
pub struct Visitor {
    pub login: Login,
    pub conn: ConnId,
    /// Whether it speaks the legacy dialect.
    pub is_legacy: bool,
    /// What its connection came with.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// A login that holds, with its room.
pub struct LoggedIn {
    pub welcome: Box<Welcome>,
    pub room: RoomGuard,
}

impl Relay {
    /// Checks who it is, takes over the device's presence, and opens its shop's room.
    ///
    /// # Errors
    /// The [`Failure`] to answer.
    pub async fn log_in(&self, visitor: Visitor) -> Result<LoggedIn, Failure> {
        let grant = self.check(&visitor).inspect_err(|_| metrics::login(LoginResult::Unauthorized))?;
        let Visitor { login, conn, .. } = visitor;
        let entered = self.enter(&login, &conn, &grant).await;
        let (room, admission) = entered.inspect_err(|_| metrics::login(LoginResult::Unavailable))?;
        let Admission::Admitted(connected) = admission else {
            metrics::login(LoginResult::Barred);
            return Err(Failure::new(ErrorCode::Unauthorized, "an operator has barred this device"));
        };
        metrics::login(LoginResult::Ok);
        debug!(shop = %login.shop, device = %login.device, %conn, cursor = %connected.cursor, "logged in");
        self.events.tell(|| Event {
            conn: Some(conn.clone()),
            shop: Some(login.shop.clone()),
            device: Some(login.device.clone()),
            role: Some(login.role),
            user: connected.membership.user.clone(),
            ..Events::event(EventKind::Login, &self.node, self.store.now_ms())
        });
        let expires_at = grant.expires_at_s.map(|at_s| {
            let left_ms = at_s.saturating_mul(1000).saturating_sub(unix_ms());
            // Beyond what the clock can tell is as good as never.
            Instant::now() + Duration::from_millis(left_ms).min(Duration::from_secs(u64::from(u32::MAX)))
        });
        let welcome = Welcome {
            login,
            grant,
            expires_at,
            membership: connected.membership,
            cursor: connected.cursor,
            head: connected.head,
            server_time_ms: self.store.now_ms(),
        };
        Ok(LoggedIn { welcome: Box::new(welcome), room })
    }

    fn check(&self, visitor: &Visitor) -> Result<Grant, Failure> {
        let Visitor { login, is_legacy, certificate, .. } = visitor;
        let Login { shop, device, role, .. } = login;
        let (token, now_s) = (login.token.as_ref().map(Token::secret), unix_ms() / 1000);
        let checked = match is_legacy {
            true => self.gate.devices.check_legacy(token, shop, device, *role, now_s),
            false => self.gate.devices.check(token, shop, device, *role, now_s),
        };
        let refused = |refusal: Refusal| Failure::new(ErrorCode::Unauthorized, refusal.to_string());
        let mut grant = checked.map_err(refused)?;
        let certified_until_s = self.gate.check_certificate(certificate.as_deref(), shop, device, now_s);
        let ends = [grant.expires_at_s, certified_until_s.map_err(refused)?];
        grant.expires_at_s = ends.into_iter().flatten().min();
        let (groups, limit) = (grant.groups.as_ref().map_or(0, Vec::len), self.device_groups_max);
        if groups > limit {
            let text = format!("the token names {groups} groups, a device may be in {limit} (limits.device_groups)");
            return Err(Failure::new(ErrorCode::Unauthorized, text));
        }
        Ok(grant)
    }

    async fn enter(&self, login: &Login, conn: &ConnId, grant: &Grant) -> Result<(RoomGuard, Admission), Failure> {
        // Subscribe before the cursor is read; the other way round, an entry that is stored
        // between the two would wait for the next audit.
        let room = self.feed.open(&login.shop).await?;
        let connect = Connect {
            device: login.device.clone(),
            role: login.role,
            conn: conn.clone(),
            node: self.node.clone(),
            meta: login.meta.clone(),
            groups: grant.groups.clone(),
            user: grant.user.clone(),
        };
        Ok((room, self.store.connect(&login.shop, &connect).await?))
    }
}
