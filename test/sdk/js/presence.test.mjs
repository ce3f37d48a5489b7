// Presence: who is in a channel, told as it happens, on attach and over REST.

import assert from 'node:assert/strict';
import { failsWith, inBothFormats, inbox, jwt, reaches, soon, unique } from './helpers.mjs';

/** Collects the presence events of a channel, and waits until attached. */
async function watched(channel) {
  const box = inbox();
  await soon(channel.presence.subscribe(box.listener), `attach of ${channel.name}`);
  return box;
}

const ids = (members) => members.map((m) => m.clientId).sort();

// RTP8c, RTP8e, RTP9a, RTP10a
inBothFormats('enter, update and leave are told to all, with data of any kind', async ({ connected }) => {
  const name = unique('presence');
  const watcher = await connected();
  const box = await watched(watcher.channels.get(name));
  const client = await connected({ clientId: 'anna' });
  const channel = client.channels.get(name);
  await soon(channel.presence.enter('text'), 'enter');
  await soon(channel.presence.update({ a: [1] }), 'update');
  await soon(channel.presence.update(Buffer.from([1, 2, 255])), 'update');
  await soon(channel.presence.leave(), 'leave');
  const [enter, update, bytes, leave] = await box.count(4);
  assert.deepEqual([enter, update, bytes, leave].map((m) => m.action), ['enter', 'update', 'update', 'leave']);
  assert.deepEqual([enter.data, update.data, [...bytes.data], [...leave.data]], ['text', { a: [1] }, [1, 2, 255], [1, 2, 255]]);
  for (const m of [enter, update, bytes, leave]) {
    assert.deepEqual([m.clientId, m.connectionId], ['anna', client.connection.id]);
    assert.ok(m.id.startsWith(`${client.connection.id}:`), m.id);
    assert.ok(Math.abs(m.timestamp - Date.now()) < 60000);
  }
  assert.deepEqual(await soon(watcher.channels.get(name).presence.get(), 'members'), []);
});

// RTP1, RTP18b
inBothFormats('who attaches later gets the members that are there', async ({ connected }) => {
  const name = unique('presence');
  const entered = await connected({ clientId: 'anna' });
  await soon(entered.channels.get(name).presence.enter({ n: 1 }), 'enter');
  await soon(entered.channels.get(name).presence.update({ n: 2 }), 'update');
  const late = await connected();
  const channel = late.channels.get(name);
  const box = await watched(channel);
  const [member] = await soon(channel.presence.get(), 'members');
  assert.deepEqual([member.clientId, member.connectionId, member.data, member.action], ['anna', entered.connection.id, { n: 2 }, 'present']);
  assert.equal((await box.count(1))[0].action, 'present');
  assert.deepEqual(ids(await soon(channel.presence.get({ clientId: 'nobody' }), 'members')), []);
});

// RTP14a, RTP15a
inBothFormats('one connection may enter for many clients', async ({ connected, rest }) => {
  const name = unique('presence');
  const many = (await connected()).channels.get(name);
  const watcher = (await connected()).channels.get(name);
  const box = await watched(watcher);
  const wanted = [];
  for (let i = 0; i < 250; i++) wanted.push(`client-${String(i).padStart(3, '0')}`);
  await soon(Promise.all(wanted.map((id) => many.presence.enterClient(id, `data of ${id}`))), '250 enters');
  await box.count(250);
  assert.deepEqual(ids(await soon(watcher.presence.get(), 'members')), wanted);

  const late = (await connected()).channels.get(name);
  const members = await soon(late.presence.get(), 'members');
  assert.deepEqual(ids(members), wanted);
  assert.ok(members.every((m) => m.data === `data of ${m.clientId}`));

  const found = [];
  let page = await soon(rest().channels.get(name).presence.get({ limit: 100 }), 'members');
  for (;;) {
    assert.ok(page.items.length <= 100);
    found.push(...page.items);
    if (!page.hasNext()) break;
    page = await soon(page.next(), 'members');
  }
  assert.deepEqual(ids(found), wanted);
  assert.ok(found.every((m) => m.action === 'present'));

  await soon(many.presence.leaveClient('client-007'), 'leave');
  await box.count(251);
  assert.equal((await soon(watcher.presence.get(), 'members')).length, 249);
});

inBothFormats('a closed connection leaves at once, and so does a detached channel', async ({ connected }) => {
  const name = unique('presence');
  const watcher = await connected();
  const box = await watched(watcher.channels.get(name));
  const closing = await connected({ clientId: 'closing' });
  await soon(closing.channels.get(name).presence.enter('bye'), 'enter');
  const detaching = await connected({ clientId: 'detaching' });
  await soon(detaching.channels.get(name).presence.enter(), 'enter');
  await box.count(2);
  closing.close();
  await box.count(3);
  await soon(detaching.channels.get(name).detach(), 'detach');
  const [, , first, second] = await box.count(4);
  assert.deepEqual([first.action, first.clientId, first.data], ['leave', 'closing', 'bye']);
  assert.deepEqual([second.action, second.clientId], ['leave', 'detaching']);
  assert.ok(!first.id.startsWith(first.connectionId), first.id);
  assert.deepEqual(await soon(watcher.channels.get(name).presence.get(), 'members'), []);
});

// RTP2b1
inBothFormats('a lost connection leaves after the time it asked for', async ({ connected }) => {
  const name = unique('presence');
  const box = await watched((await connected()).channels.get(name));
  const client = await connected({ clientId: 'lost', transportParams: { remainPresentFor: 1000 }, disconnectedRetryTimeout: 600000 });
  await soon(client.channels.get(name).presence.enter('here'), 'enter');
  await box.count(1);
  const began = Date.now();
  client.connection.connectionManager.startConnect = () => {}; // it stays away
  client.connection.connectionManager.disconnectAllTransports();
  const [, leave] = await box.count(2);
  assert.deepEqual([leave.action, leave.clientId, leave.data], ['leave', 'lost', 'here']);
  assert.ok(Date.now() - began >= 800, `after ${Date.now() - began} ms`);
});

inBothFormats('a connection that comes back in time has never left', async ({ connected }) => {
  const name = unique('presence');
  const watcher = (await connected()).channels.get(name);
  const box = await watched(watcher);
  const client = await connected({ clientId: 'back' });
  const channel = client.channels.get(name);
  await soon(channel.presence.enter('here'), 'enter');
  const id = client.connection.id;
  client.connection.connectionManager.disconnectAllTransports();
  await reaches(client.connection, 'disconnected');
  await reaches(client.connection, 'connected');
  assert.equal(client.connection.id, id);
  await reaches(channel, 'attached');
  await soon(channel.presence.update('still here'), 'update');
  const events = await box.count(2);
  assert.deepEqual(events.map((m) => m.action), ['enter', 'update']);
  assert.deepEqual(ids(await soon(watcher.presence.get(), 'members')), ['back']);
  assert.deepEqual(ids(await soon(channel.presence.get(), 'members')), ['back']);
});

// RTP8h, RTP8i
inBothFormats('presence needs an identity and the right', async ({ connected, realtime }) => {
  const name = unique('presence');
  const identified = await connected({ token: jwt({ clientId: 'ivan', capability: { [name]: ['presence', 'subscribe'] } }) });
  const channel = identified.channels.get(name);
  await soon(channel.presence.enter(), 'enter');
  await failsWith(channel.presence.enterClient('other'), 40012, 400);
  const reader = await connected({ token: jwt({ clientId: 'eva', capability: { [name]: ['subscribe'] } }) });
  await failsWith(reader.channels.get(name).presence.enter(), 40160, 401);
  assert.deepEqual(ids(await soon(reader.channels.get(name).presence.get(), 'members')), ['ivan']);
  const moded = await connected({ clientId: 'mia' });
  await failsWith(moded.channels.get(name, { modes: ['PRESENCE_SUBSCRIBE'] }).presence.enter(), 40165, 401);
});

// RTP17a
inBothFormats('without PRESENCE_SUBSCRIBE one sees oneself only, until the mode is added', async ({ connected }) => {
  const name = unique('presence');
  const other = await connected({ clientId: 'other' });
  await soon(other.channels.get(name).presence.enter('o'), 'enter');
  const client = await connected({ clientId: 'self' });
  const channel = client.channels.get(name, { modes: ['PRESENCE', 'PUBLISH', 'SUBSCRIBE'] });
  const box = inbox();
  channel.presence.subscriptions.on(box.listener); // subscribe() itself asks for the mode
  await soon(channel.presence.enter('s'), 'enter');
  await box.count(1);
  assert.deepEqual(ids(await soon(channel.presence.get({ waitForSync: false }), 'members')), ['self']);
  await soon(other.channels.get(name).presence.update('unheard'), 'update');
  await soon(channel.setOptions({ modes: ['PRESENCE', 'PRESENCE_SUBSCRIBE', 'SUBSCRIBE'] }), 'new options');
  await box.count(2);
  assert.deepEqual(ids(await soon(channel.presence.get(), 'members')), ['other', 'self']);
});

// RSP3a, RSP3a1-3, RSP4a, RTP12d
inBothFormats('events of the past and members are there over REST', async ({ connected, rest }) => {
  const name = unique('presence');
  const client = await connected({ clientId: 'anna' });
  const channel = client.channels.get(name);
  await soon(channel.presence.enter({ a: 1 }), 'enter');
  await soon(channel.presence.update('two'), 'update');
  await soon(channel.presence.enterClient('anna', 'three'), 'enter');
  const other = await connected({ clientId: 'zoe' });
  await soon(other.channels.get(name).presence.enter(), 'enter');
  const api = rest().channels.get(name).presence;
  assert.deepEqual(ids((await soon(api.get(), 'members')).items), ['anna', 'zoe']);
  assert.deepEqual(ids((await soon(api.get({ clientId: 'zoe' }), 'members')).items), ['zoe']);
  const own = (await soon(api.get({ connectionId: client.connection.id }), 'members')).items;
  assert.deepEqual(own.map((m) => [m.clientId, m.data]), [['anna', 'three']]);
  await soon(channel.presence.leave(), 'leave');

  const events = (await soon(api.history({ direction: 'forwards' }), 'history')).items;
  assert.deepEqual(events.map((m) => [m.action, m.clientId, m.data ?? null]), [
    ['enter', 'anna', { a: 1 }], ['update', 'anna', 'two'], ['enter', 'anna', 'three'], ['enter', 'zoe', null], ['leave', 'anna', 'three'],
  ]);
  const found = [];
  let page = await soon(channel.presence.history({ limit: 2 }), 'history');
  for (;;) {
    found.push(...page.items);
    if (!page.hasNext()) break;
    page = await soon(page.next(), 'history');
  }
  assert.deepEqual(found.map((m) => m.id).reverse(), events.map((m) => m.id));
});

inBothFormats('messages and presence keep their order, and echo off does not hide presence', async ({ connected }) => {
  const name = unique('presence');
  const client = await connected({ clientId: 'anna', echoMessages: false });
  const channel = client.channels.get(name);
  const box = await watched(channel);
  const other = (await connected({ clientId: 'ben' })).channels.get(name);
  const all = [];
  await soon(other.subscribe((m) => all.push(m.name)), 'attach');
  const seen = await watched(other);
  other.presence.subscribe((m) => all.push(m.action));
  await soon(channel.publish('one', ''), 'a publish');
  await soon(channel.presence.enter(), 'enter');
  await soon(channel.publish('two', ''), 'a publish');
  await soon(channel.presence.leave(), 'leave');
  await seen.count(2);
  assert.deepEqual(all, ['one', 'enter', 'two', 'leave']);
  assert.deepEqual((await box.count(2)).map((m) => m.action), ['enter', 'leave']);
});
