// Tokens that are revoked, and what others are told of who holds a token.

import assert from 'node:assert/strict';
import { failsWith, httpURL, inBothFormats, jwt, reaches, soon, subscribed, unique } from './helpers.mjs';

/** An app of its own, with one revocable key and one that is not. */
async function provision() {
  const response = await fetch(`${httpURL}/apps`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ keys: [{ revocableTokens: true }, {}] }),
  });
  assert.equal(response.status, 201);
  return (await response.json()).keys;
}

inBothFormats('a client whose token is revoked renews it and resumes', async ({ rest, connected }) => {
  const [key] = await provision();
  const owner = rest({ key: key.keyStr });
  let calls = 0;
  const client = await connected({
    authCallback: (_params, callback) => {
      calls++;
      owner.auth.requestToken({ clientId: 'bob' }).then((token) => callback(null, token), callback);
    },
  });
  const bystander = await connected({ tokenDetails: await owner.auth.requestToken({ clientId: 'eve' }) });
  const id = client.connection.id;
  const disconnected = new Promise((resolve) => client.connection.once('disconnected', resolve));
  const result = await soon(owner.auth.revokeTokens([{ type: 'clientId', value: 'bob' }]), 'the revocation');
  assert.deepEqual([result.successCount, result.failureCount], [1, 0]);
  const { reason } = await soon(disconnected, 'the end of the token');
  assert.deepEqual([reason.code, reason.statusCode], [40141, 401]);
  await reaches(client.connection, 'connected');
  assert.equal(calls, 2);
  assert.equal(client.connection.id, id);
  await soon(client.channels.get(unique('renewed')).publish('a', 'b'), 'a publish');
  assert.equal(bystander.connection.state, 'connected');
});

inBothFormats('a client that cannot renew its revoked token is refused', async ({ rest, connected, realtime }) => {
  const [key] = await provision();
  const owner = rest({ key: key.keyStr });
  const tokenDetails = await soon(owner.auth.requestToken({ clientId: 'bob' }), 'a token');
  const client = await connected({ tokenDetails });
  const failed = new Promise((resolve) => client.connection.once('failed', resolve));
  await soon(owner.auth.revokeTokens([{ type: 'clientId', value: 'bob' }]), 'the revocation');
  assert.equal((await soon(failed, 'failure')).reason.code, 40171);
  const late = realtime({ token: tokenDetails.token });
  await soon(new Promise((resolve) => late.connection.once('failed', resolve)), 'refusal');
  await failsWith(rest({ token: tokenDetails.token }).channels.get('x').history(), 40171);
  const response = await fetch(`${httpURL}/channels/x/messages`, { headers: { Authorization: `Bearer ${tokenDetails.token}` } });
  assert.deepEqual([response.status, response.headers.get('x-ably-errorcode')], [401, '40141']);
});

inBothFormats('a client has time to renew a token before its revocation applies', async ({ rest, connected }) => {
  const [key] = await provision();
  const owner = rest({ key: key.keyStr });
  const states = [];
  let calls = 0;
  const client = await connected({
    authCallback: (_params, callback) => {
      // Times of JWTs are in seconds: one is made before that of the revocation, one after.
      const issued = Math.floor(Date.now() / 1000) + (calls++ === 0 ? -1 : 1);
      callback(null, jwt({ name: key.keyName, secret: key.keySecret, clientId: 'bob', issued, revocationKey: 'group' }));
    },
  });
  client.connection.on((change) => states.push(change.current));
  const updated = new Promise((resolve) => client.connection.once('update', resolve));
  const result = await soon(owner.auth.revokeTokens([{ type: 'revocationKey', value: 'group' }], { allowReauthMargin: true }), 'the revocation');
  assert.ok(result.results[0].appliesAt >= result.results[0].issuedBefore + 30000);
  await soon(updated, 'the renewal');
  assert.equal(calls, 2);
  assert.deepEqual(states, ['connected']);
});

inBothFormats('tokens of other keys are not revocable', async ({ rest }) => {
  const [key, other] = await provision();
  await failsWith(rest({ key: other.keyStr }).auth.revokeTokens([{ type: 'clientId', value: 'bob' }]), 40163, 401);
  const token = await soon(rest({ key: key.keyStr }).auth.requestToken(), 'a token');
  const byToken = rest({ tokenDetails: token });
  await failsWith(byToken.auth.revokeTokens([{ type: 'clientId', value: 'bob' }]), 40162, 401);
});

inBothFormats('others see what the issuer of a token says of its client', async ({ connected }) => {
  const name = unique('claims');
  const token = jwt({ clientId: 'bob', claims: { [`ably.channel.${name}`]: 'a moderator', 'ably.channel.*': 'anybody' } });
  const [bob, watcher] = [await connected({ token }), await connected()];
  const channel = watcher.channels.get(name);
  const box = await subscribed(channel);
  await soon(bob.channels.get(name).publish({ name: 'a', data: 'b', extras: { headers: { x: 1 } } }), 'a publish');
  const [message] = await box.count(1);
  assert.deepEqual(message.extras, { headers: { x: 1 }, userClaim: 'a moderator' });
  await failsWith(bob.channels.get(name).publish({ name: 'a', extras: { userClaim: 'an admin' } }), 40032, 400);

  let entered;
  const entering = new Promise((resolve) => (entered = resolve));
  await soon(channel.presence.subscribe('enter', entered), 'subscribing');
  await soon(bob.channels.get(name).presence.enter('here'), 'entering');
  assert.deepEqual((await soon(entering, 'the member')).extras, { userClaim: 'a moderator' });
});
