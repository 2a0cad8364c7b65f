// Tokens of devices, for a relay with auth = "jwt". The secret is the one of its jwt_secret_file.

import { hmac } from 'k6/crypto';
import { b64encode } from 'k6/encoding';

// A token of HS256 that is good for a day, or nothing where there is no secret.
export function token(secret, shop, device, role) {
  if (secret === '') {
    return undefined;
  }
  const exp = Math.floor(Date.now() / 1000) + 86400;
  const parts = [{ alg: 'HS256', typ: 'JWT' }, { shop, device, role, exp }];
  const signed = parts.map((part) => b64encode(JSON.stringify(part), 'rawurl')).join('.');
  return `${signed}.${hmac('sha256', secret, signed, 'base64rawurl')}`;
}
