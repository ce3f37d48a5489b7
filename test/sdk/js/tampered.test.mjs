// Requests that the SDK signed, and tokens that they got, get in; no tampered form of them does.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { httpURL, inBothFormats, keyName, keySecret, soon, unique } from './helpers.mjs';

const name = unique('tampered');

async function ask(request, path = keyName) {
  const response = await fetch(`${httpURL}/keys/${path}/requestToken`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(request),
  });
  return { status: response.status, details: await response.json() };
}

async function history(token) {
  const response = await fetch(`${httpURL}/channels/${name}/messages`, { headers: { Authorization: `Bearer ${Buffer.from(token).toString('base64')}` } });
  await response.arrayBuffer();
  return response.status;
}

function sign(request, secret) {
  const text = ['keyName', 'ttl', 'capability', 'clientId', 'timestamp', 'nonce'].map((field) => `${request[field] ?? ''}\n`).join('');
  return { ...request, mac: createHmac('sha256', secret).update(text).digest('base64') };
}

inBothFormats('a signed request is good as it is and in no other form', async ({ rest }) => {
  const params = { clientId: 'bob', ttl: 60000, capability: { [name]: ['history'] } };
  const genuine = { ...(await soon(rest().auth.createTokenRequest(params), 'a signed request')) };
  const fields = ['keyName', 'ttl', 'capability', 'clientId', 'timestamp', 'nonce', 'mac'];
  assert.deepEqual(Object.keys(genuine).sort(), [...fields].sort());

  const tampered = [];
  const values = ['', '*', 'root', 0, -1, 60001, 86400000, `${genuine.timestamp}0`, JSON.stringify({ '*': ['*'] }), 'nosuch.key', keyName.split('.')[0], null, true, {}, []];
  for (const field of fields) {
    const { [field]: value, ...without } = genuine;
    tampered.push(without);
    for (const other of values) tampered.push({ ...genuine, [field]: other });
    const text = String(value);
    for (let i = 0; i < text.length; i++) {
      tampered.push({ ...genuine, [field]: text.slice(0, i) });
      tampered.push({ ...genuine, [field]: text.slice(0, i) + String.fromCharCode(text.charCodeAt(i) ^ 1) + text.slice(i + 1) });
    }
  }
  for (const secret of ['', keyName, `${keySecret}x`, 'letshare-jwt-secret-key-2024']) tampered.push(sign({ ...genuine, clientId: 'root' }, secret));
  for (const request of tampered) {
    const { status, details } = await ask(request);
    assert.ok(status >= 400 && status < 500, `${JSON.stringify(request)} is answered with ${status}`);
    assert.equal(details.token, undefined);
  }
  assert.equal((await ask(genuine, 'nosuch.key')).status, 404);

  const { status, details } = await ask(genuine);
  assert.equal(status, 201);
  assert.equal((await ask(genuine)).status, 401); // once

  const { token } = details;
  assert.equal(await history(token), 200);
  for (let i = 0; i < token.length; i++) {
    assert.equal(await history(token.slice(0, i) + (token[i] === 'A' ? 'B' : 'A') + token.slice(i + 1)), 401, `character ${i} changed`);
    if (i > 0) assert.equal(await history(token.slice(0, i)), 401, `cut after ${i} characters`);
  }
  assert.equal(await history(`${token}A`), 401);
});
