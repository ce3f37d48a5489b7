// An app of its own, made and deleted as the suites of Ably's SDKs do it.

import assert from 'node:assert/strict';
import { failsWith, host, httpURL, inBothFormats, port, soon } from './helpers.mjs';

const setup = {
  limits: { presence: { maxMembers: 250 } },
  keys: [
    {},
    { capability: JSON.stringify({ 'cansubscribe:*': ['subscribe'], 'canpublish:*': ['publish'] }) },
    { capability: JSON.stringify({ '*': ['subscribe'] }) },
    { revocableTokens: true },
    { capability: JSON.stringify({ '[*]*': ['*'] }) },
  ],
  namespaces: [
    { id: 'persisted', persisted: true },
    { id: 'pushenabled', pushEnabled: true },
    { id: 'mutable', mutableMessages: true },
  ],
  channels: [{ name: 'persisted:presence_fixtures', presence: [{ clientId: 'client_bool', data: 'true' }] }],
};

async function provision() {
  const response = await fetch(`${httpURL}/apps`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Accept: 'application/json' },
    body: JSON.stringify(setup),
  });
  assert.equal(response.status, 201);
  return response.json();
}

const basic = (key) => ({ Authorization: `Basic ${Buffer.from(key).toString('base64')}` });

// G2
inBothFormats('an app is provisioned, used and deleted', async ({ rest, connected, realtime }) => {
  const app = await provision();
  assert.deepEqual([app.endpoint, app.port, app.tls], [host, port, false]);
  assert.equal(app.keys.length, setup.keys.length);
  assert.equal(app.namespaces.length, setup.namespaces.length);
  const options = { endpoint: app.endpoint, port: app.port, tlsPort: app.port, tls: app.tls };
  const [all, , reader, revocable] = app.keys;

  const client = await connected({ ...options, key: all.keyStr });
  const channel = client.channels.get('persisted:x');
  const got = new Promise((resolve) => channel.subscribe(resolve).then(() => channel.publish('a', 'b')));
  assert.equal((await soon(got, 'a message')).data, 'b');

  const fixture = client.channels.get('persisted:presence_fixtures').presence;
  const members = await soon(fixture.get(), 'members');
  assert.deepEqual(members.map((m) => [m.clientId, m.data, m.action]), [['client_bool', 'true', 'present']]);
  assert.deepEqual((await soon(fixture.history(), 'history')).items.map((m) => [m.clientId, m.action]), [['client_bool', 'enter']]);

  await failsWith(rest({ ...options, key: reader.keyStr }).channels.get('x').publish('a', 'b'), 40160, 401);
  const details = await soon(rest({ ...options, key: revocable.keyStr }).auth.requestToken(), 'a token');
  assert.equal(details.capability, JSON.stringify({ '*': ['*'] }));
  await failsWith(rest({ ...options, key: revocable.keyStr }).auth.requestToken({ ttl: 3600001 }), 40003, 400);

  const fixtures = [{ intervalId: '2024-02-03:15:03', inbound: { realtime: { messages: { count: 50, data: 5000 } } } }];
  const stats = await fetch(`${httpURL}/stats`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...basic(all.keyStr) },
    body: JSON.stringify(fixtures),
  });
  assert.equal(stats.status, 201);

  const failed = new Promise((resolve) => client.connection.once('failed', resolve));
  const deleted = await fetch(`${httpURL}/apps/${app.appId}`, { method: 'DELETE', headers: basic(reader.keyStr) });
  assert.equal(deleted.status, 204);
  const change = await soon(failed, 'the end of the connection');
  assert.equal(change.reason.code, 40400);

  await failsWith(rest({ ...options, key: all.keyStr }).channels.get('x').publish('a', 'b'), 40400, 404);
  await failsWith(rest({ ...options, token: details.token }).channels.get('x').publish('a', 'b'), 40400, 404);
  const late = realtime({ ...options, token: details.token });
  assert.equal((await soon(new Promise((resolve) => late.connection.once('failed', resolve)), 'refusal')).reason.code, 40400);
});
