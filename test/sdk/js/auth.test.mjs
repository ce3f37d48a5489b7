// Keys, JWTs and their ends.

import assert from 'node:assert/strict';
import { failsWith, inBothFormats, jwt, keyName, keySecret, reaches, shortLife, soon, unique } from './helpers.mjs';

// TN3
inBothFormats('a client connects with a JWT', async ({ connected }) => {
  const client = await connected({ token: jwt({ clientId: 'bob' }) });
  assert.equal(client.auth.clientId, 'bob');
  await soon(client.channels.get(unique('jwt')).publish('a', 'b'), 'a publish');
});

// TN3, RSA7b3
inBothFormats('a client connects with a JWT of its authCallback', async ({ connected }) => {
  let calls = 0;
  const client = await connected({
    authCallback: (_params, callback) => {
      calls++;
      callback(null, jwt({ clientId: 'carol' }));
    },
  });
  assert.equal(client.auth.clientId, 'carol');
  assert.equal(calls, 1);
});

inBothFormats('a JWT without a capability has all that its key has', async ({ connected }) => {
  const client = await connected({ token: jwt() });
  const channel = client.channels.get(unique('all'));
  await soon(channel.attach(), 'attach');
  await soon(channel.publish('a', 'b'), 'a publish');
  await soon(channel.history(), 'history');
});

// RSA4b, RTN14b, RTN22a
inBothFormats('an expired JWT is renewed, in time or after the server has said so', async ({ connected }) => {
  const tokens = [jwt({ ttl: shortLife, clientId: 'dora' }), jwt({ ttl: 600, clientId: 'dora' })];
  let calls = 0;
  const client = await connected({
    authCallback: (_params, callback) => callback(null, tokens[Math.min(calls++, 1)]),
  });
  assert.equal(calls, 1);
  const disconnected = await soon(
    new Promise((resolve) => client.connection.once('disconnected', resolve)),
    'the end of the token',
  );
  assert.equal(disconnected.reason.code, 40142);
  assert.equal(disconnected.reason.statusCode, 401);
  assert.match(disconnected.reason.message, /token expired/);
  await reaches(client.connection, 'connected');
  assert.equal(calls, 2);
  await soon(client.channels.get(unique('renewed')).publish('a', 'b'), 'a publish');
});

inBothFormats('an expired JWT that cannot be renewed ends the connection', async ({ connected }) => {
  const client = await connected({ token: jwt({ ttl: shortLife }) });
  const failed = await soon(new Promise((resolve) => client.connection.once('failed', resolve)), 'failure');
  assert.equal(failed.reason.code, 40171);
});

// RTN22
inBothFormats('the server asks for a new token half a minute before the end of the old', async ({ connected }) => {
  let calls = 0;
  const client = await connected({
    authCallback: (_params, callback) => callback(null, jwt({ ttl: calls++ === 0 ? 32 : 600, clientId: 'eve' })),
  });
  const id = client.connection.id;
  const update = await soon(new Promise((resolve) => client.connection.once('update', resolve)), 'the renewal');
  assert.equal(update.reason ?? undefined, undefined);
  assert.equal(calls, 2);
  assert.equal(client.connection.id, id);
  assert.equal(client.connection.state, 'connected');
});

// RTC8a, RTC8a1, RTC8a4
inBothFormats('authorize renews in band and keeps connection and channels', async ({ connected }) => {
  const name = unique('inband');
  const client = await connected({ token: jwt({ clientId: 'frank' }) });
  const id = client.connection.id;
  const channel = client.channels.get(name);
  await soon(channel.attach(), 'attach');
  const token = jwt({ clientId: 'frank', ttl: 300 });
  await soon(client.auth.authorize(null, { token }), 'authorize');
  assert.equal(client.connection.id, id);
  assert.equal(channel.state, 'attached');
  await soon(channel.publish('a', 'b'), 'a publish');
});

// RTC8a1, RTL14
inBothFormats('a channel that a new token does not permit fails, the others stay', async ({ connected }) => {
  const kept = unique('kept');
  const lost = unique('lost');
  const client = await connected({ token: jwt({ clientId: 'grace' }) });
  const channels = [client.channels.get(kept), client.channels.get(lost)];
  await soon(Promise.all(channels.map((c) => c.attach())), 'attach');
  const failed = new Promise((resolve) => channels[1].once('failed', resolve));
  await soon(client.auth.authorize(null, { token: jwt({ clientId: 'grace', capability: { [kept]: ['subscribe'] } }) }), 'authorize');
  const change = await soon(failed, 'the end of the lost channel');
  assert.equal(change.reason.code, 40160);
  assert.equal(change.reason.statusCode, 401);
  assert.equal(channels[0].state, 'attached');
  await failsWith(channels[0].publish('a', 'b'), 40160, 401);
  // and rights that come back are good without another attach
  await soon(client.auth.authorize(null, { token: jwt({ clientId: 'grace', capability: { [kept]: ['*'] } }) }), 'authorize');
  await soon(channels[0].publish('a', 'b'), 'a publish');
});

for (const [what, other] of [
  ['of another client', () => jwt({ clientId: 'mallory' })],
  ['with a bad signature', () => jwt({ clientId: 'heidi', secret: 'no-such-secret' })],
]) {
  inBothFormats(`authorize with a token ${what} ends the connection`, async ({ connected }) => {
    const client = await connected({ token: jwt({ clientId: 'heidi' }) });
    const failed = new Promise((resolve) => client.connection.once('failed', resolve));
    // A token as a string, so that the client itself cannot see whose it is.
    const authorized = client.auth.authorize(null, { token: other() }).then(
      () => assert.fail('it was accepted'),
      (err) => err,
    );
    const change = await soon(failed, 'failure');
    assert.equal(change.reason.statusCode, 401);
    assert.ok([40101, 40102].includes(change.reason.code), `${change.reason}`);
    await authorized;
  });
}

const refused = [
  ['a wrong secret', () => ({ key: `${keyName}:wrong` }), 40101, 401],
  ['an unknown key', () => ({ key: `${keyName.split('.')[0]}.nosuch:${keySecret}` }), 40101, 401],
  ['an unknown app', () => ({ key: 'nosuch.key:secret' }), 40101, 401],
  ['a token that is none', () => ({ token: 'garbage' }), 40101, 401],
  ['a JWT of an unknown app', () => ({ token: jwt({ name: 'nosuch.key' }) }), 40400, 404],
  ['a clientId that is not the token\'s', () => ({ token: jwt({ clientId: 'a' }), clientId: 'b' }), 40102, 401],
];
for (const [what, options, code, statusCode] of refused) {
  inBothFormats(`${what} fails the connection`, async ({ realtime }) => {
    const client = realtime(options());
    const change = await soon(new Promise((resolve) => client.connection.once('failed', resolve)), 'failure');
    assert.equal(change.reason.code, code, `${change.reason}`);
    assert.equal(change.reason.statusCode, statusCode);
  });
}

for (const [what, token, code] of [
  ['with a bad signature', () => jwt({ secret: 'wrong' }), 40144],
  ['that has expired', () => jwt({ ttl: 10, issued: Math.floor(Date.now() / 1000) - 60 }), 40142],
]) {
  inBothFormats(`a JWT ${what} is refused with ${code}`, async ({ realtime, rest }) => {
    const client = realtime({ authCallback: (_params, callback) => callback(null, token()) });
    const change = await soon(new Promise((resolve) => client.connection.once('disconnected', resolve)), 'refusal');
    assert.equal(change.reason.code, code, `${change.reason}`);
    assert.equal(change.reason.statusCode, 401);
    client.close();

    // A token without means to renew it: the SDK says so itself.
    await failsWith(rest({ token: token() }).channels.get('x').publish('a', 'b'), 40171);
  });
}

// RSC10
inBothFormats('REST refuses credentials with the codes for REST', async ({ rest }) => {
  const publish = (options) => rest(options).channels.get('x').publish('a', 'b');
  await failsWith(publish({ key: `${keyName}:wrong` }), 40101, 401);
  await failsWith(publish({ key: `${keyName.split('.')[0]}.nosuch:${keySecret}` }), 40400, 401);
  await failsWith(publish({ key: 'nosuch.key:secret' }), 40400, 404);
  await failsWith(publish({ token: jwt({ name: 'nosuch.key' }) }), 40400, 404);
  await failsWith(publish({ token: jwt({ capability: { y: ['publish'] } }) }), 40160, 401);
  await soon(publish({ token: jwt({ capability: { x: ['publish'] } }) }), 'a publish');
});
