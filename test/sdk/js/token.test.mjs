// Ably tokens: asked for by who has the key, or with requests that it signed.

import assert from 'node:assert/strict';
import { failsWith, inBothFormats, keyName, reaches, shortLife, soon, unique } from './helpers.mjs';

const full = JSON.stringify({ '*': ['*'] });

// RSA8a, TD2-6, TN2
inBothFormats('who has the key gets tokens, and connects with them', async ({ rest, connected }) => {
  const asked = { clientId: 'bob', ttl: 123456, capability: { 'chat:*': ['subscribe', 'publish'], b: ['history'] } };
  const details = await soon(rest().auth.requestToken(asked), 'a token');
  assert.equal(details.keyName, keyName);
  assert.equal(details.clientId, 'bob');
  assert.equal(details.expires - details.issued, 123456);
  assert.equal(details.capability, '{"b":["history"],"chat:*":["publish","subscribe"]}');
  assert.ok(details.token.startsWith(keyName.split('.')[0] + '.'));
  assert.equal(encodeURIComponent(details.token), details.token);
  for (const credentials of [{ tokenDetails: details }, { token: details.token }]) {
    const client = await connected(credentials);
    assert.equal(client.auth.clientId, 'bob');
    await soon(client.channels.get(unique('chat:a')).publish('a', 'b'), 'a publish');
    await failsWith(client.channels.get(unique('other')).publish('a', 'b'), 40160, 401);
    await failsWith(client.channels.get(unique('other')).attach(), 40160, 401);
  }
});

// RSA5, RSA6
inBothFormats('a token that asks for nothing has all that its key has', async ({ rest, connected }) => {
  const details = await soon(rest().auth.requestToken(), 'a token');
  assert.equal(details.capability, full);
  assert.equal(details.expires - details.issued, 3600000);
  assert.equal(details.clientId, undefined);
  const client = await connected({ tokenDetails: details });
  const channel = client.channels.get(unique('all'));
  await soon(channel.attach(), 'attach');
  await soon(channel.publish('a', 'b'), 'a publish');
  await soon(channel.history(), 'history');
});

// RSA9a, RSA9g
inBothFormats('an authCallback gives a request that its server signed', async ({ rest, connected }) => {
  let calls = 0;
  const client = await connected({
    authCallback: (params, callback) => {
      calls++;
      rest().auth.createTokenRequest({ ...params, clientId: 'carol', ttl: 60000 }).then((r) => callback(null, r), callback);
    },
  });
  assert.equal(calls, 1);
  assert.equal(client.auth.clientId, 'carol');
  assert.equal(client.auth.tokenDetails.clientId, 'carol');
  assert.equal(client.auth.tokenDetails.expires - client.auth.tokenDetails.issued, 60000);
  await soon(client.channels.get(unique('signed')).publish('a', 'b'), 'a publish');
});

// RSA7b4, RSA15b, RSA8f3-4
inBothFormats('a token with any clientId acts for the one that the client chooses', async ({ rest, connected }) => {
  const details = await soon(rest().auth.requestToken({ clientId: '*' }), 'a token');
  assert.equal(details.clientId, '*');
  const chosen = await connected({ tokenDetails: details, clientId: 'dora' });
  assert.equal(chosen.auth.clientId, 'dora');
  const open = await connected({ tokenDetails: details });
  assert.equal(open.auth.clientId, '*');
  await soon(open.channels.get(unique('any')).publish({ name: 'a', clientId: 'eve' }), 'a publish');
});

// RSA12a, RSA8f1-2
inBothFormats('a token without clientId is anonymous', async ({ rest, connected, realtime }) => {
  const details = await soon(rest().auth.requestToken(), 'a token');
  const client = await connected({ tokenDetails: details });
  assert.ok(!client.auth.clientId);
  await failsWith(client.channels.get(unique('anon')).publish({ name: 'a', clientId: 'eve' }), 40012, 400);
  const claiming = realtime({ token: details.token, clientId: 'eve' });
  const change = await soon(new Promise((resolve) => claiming.connection.once('failed', resolve)), 'failure');
  assert.equal(change.reason.code, 40102);
});

// RSA3b
inBothFormats('REST takes tokens', async ({ rest }) => {
  const name = unique('rest');
  const details = await soon(rest().auth.requestToken({ capability: { [name]: ['publish'] } }), 'a token');
  const client = rest({ tokenDetails: details });
  await soon(client.channels.get(name).publish('a', 'b'), 'a publish');
  await failsWith(client.channels.get(name).history(), 40160, 401);
});

// RSA4b
inBothFormats('an expired token is renewed by asking for another', async ({ rest, connected }) => {
  let calls = 0;
  const client = await connected({
    authCallback: (_params, callback) => {
      const ttl = calls++ === 0 ? shortLife * 1000 : 600000;
      rest().auth.createTokenRequest({ clientId: 'frank', ttl }).then((r) => callback(null, r), callback);
    },
  });
  const change = await soon(new Promise((resolve) => client.connection.once('disconnected', resolve)), 'the end of the token');
  assert.equal(change.reason.code, 40142);
  assert.match(change.reason.message, /token expired/);
  await reaches(client.connection, 'connected');
  assert.equal(calls, 2);
});

// RTC8a4
inBothFormats('authorize brings a token in band', async ({ rest, connected }) => {
  const [kept, lost] = [unique('kept'), unique('lost')];
  const client = await connected({ tokenDetails: await soon(rest().auth.requestToken({ clientId: 'grace' }), 'a token') });
  const id = client.connection.id;
  const channels = [client.channels.get(kept), client.channels.get(lost)];
  await soon(Promise.all(channels.map((c) => c.attach())), 'attach');
  const failed = new Promise((resolve) => channels[1].once('failed', resolve));
  const narrower = await soon(rest().auth.requestToken({ clientId: 'grace', capability: { [kept]: ['*'] } }), 'a token');
  await soon(client.auth.authorize(null, { tokenDetails: narrower }), 'authorize');
  assert.equal((await soon(failed, 'the end of the lost channel')).reason.code, 40160);
  assert.equal(client.connection.id, id);
  assert.equal(channels[0].state, 'attached');
});

// RSA9c
inBothFormats('a signed request is good once', async ({ rest }) => {
  const request = await rest().auth.createTokenRequest({ ttl: 60000 });
  // With no key of its own, so that the signature is all there is.
  const client = rest({ authCallback: (_params, callback) => callback(null, request) });
  await soon(client.auth.authorize(), 'a token');
  await failsWith(client.auth.authorize(), 40105, 401);
});

for (const [what, params, code, statusCode] of [
  ['a bad mac', { mac: 'bWFj' }, 40101, 401],
  ['an old timestamp', { timestamp: Date.now() - 30 * 60 * 1000 }, 40104, 401],
]) {
  inBothFormats(`a request with ${what} is refused`, async ({ rest }) => {
    const request = await rest().auth.createTokenRequest(params);
    const answer = await soon(
      rest().request('post', `/keys/${keyName}/requestToken`, 2, null, { ...request, ...('mac' in params ? params : {}) }),
      'an answer',
    );
    assert.equal(answer.statusCode, statusCode);
    assert.equal(answer.errorCode, code);
  });
}

for (const [what, params, code, statusCode] of [
  ['a negative ttl', { ttl: -1 }, 40003, 400],
  ['a ttl that is none', { ttl: 'soon' }, 40003, 400],
  ['a ttl of a year', { ttl: 365 * 24 * 3600 * 1000 }, 40003, 400],
  ['an unknown operation', { capability: { a: ['fly'] } }, 40000, 400],
  ['* beside others', { capability: { a: ['*', 'publish'] } }, 40000, 400],
  ['no operations', { capability: { a: [] } }, 40000, 400],
  ['nothing in common with the key', { capability: { '[meta]log': ['subscribe'] } }, 40160, 401],
]) {
  inBothFormats(`a request with ${what} is refused`, async ({ rest }) => {
    await failsWith(rest().auth.requestToken(params), code, statusCode);
  });
}

inBothFormats('a token of this app that the server never made is refused', async ({ realtime }) => {
  const token = `${keyName.split('.')[0]}.invalid-token`;
  const client = realtime({ authCallback: (_params, callback) => callback(null, token) });
  const change = await soon(new Promise((resolve) => client.connection.once('disconnected', resolve)), 'refusal');
  assert.equal(change.reason.code, 40145, `${change.reason}`);
  assert.equal(change.reason.statusCode, 401);
});
