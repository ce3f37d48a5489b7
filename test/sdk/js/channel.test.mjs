// Attaching, modes, and who may do what.

import assert from 'node:assert/strict';
import { failsWith, inBothFormats, jwt, soon, subscribed, unique } from './helpers.mjs';

// RTL4c, RTL5d
inBothFormats('a channel attaches, detaches and attaches again', async ({ connected }) => {
  const client = await connected();
  const channel = client.channels.get(unique('attach'));
  for (let i = 0; i < 3; i++) {
    await soon(channel.attach(), 'attach');
    assert.equal(channel.state, 'attached');
    assert.ok(channel.properties.attachSerial);
    await soon(channel.detach(), 'detach');
    assert.equal(channel.state, 'detached');
  }
});

// RTL4m
inBothFormats('without modes a channel gets the default ones', async ({ connected }) => {
  const client = await connected();
  const channel = client.channels.get(unique('modes'));
  await soon(channel.attach(), 'attach');
  assert.deepEqual([...channel.modes].map((m) => m.toLowerCase()).sort(), [
    'annotation_publish', 'presence', 'presence_subscribe', 'publish', 'subscribe',
  ]);
});

// RTL4l, RTL4m, RTL16a, TB2d
inBothFormats('modes restrict a channel, and options can be changed while attached', async ({ connected }) => {
  const client = await connected();
  const other = await connected();
  const name = unique('modes');
  const channel = client.channels.get(name, { modes: ['SUBSCRIBE'] });
  const box = await subscribed(channel);
  assert.deepEqual([...channel.modes].map((m) => m.toLowerCase()), ['subscribe']);
  await failsWith(channel.publish('a', 'b'), 40165, 401);
  await soon(other.channels.get(name).publish('one', ''), 'a publish');
  await soon(channel.setOptions({ modes: ['SUBSCRIBE', 'PUBLISH'] }), 'new options');
  assert.deepEqual([...channel.modes].map((m) => m.toLowerCase()).sort(), ['publish', 'subscribe']);
  await soon(channel.publish('two', ''), 'a publish');
  await soon(channel.setOptions({ params: { modes: 'publish' } }), 'new options');
  await soon(channel.publish('unheard', ''), 'a publish');
  await soon(channel.setOptions({ params: { modes: 'subscribe' } }), 'new options');
  assert.equal(channel.params.modes, 'subscribe');
  await soon(other.channels.get(name).publish('three', ''), 'a publish');
  assert.deepEqual((await box.count(3)).map((m) => m.name), ['one', 'two', 'three']);
});

// RTL4k1
inBothFormats('parameters that are unknown do not come back', async ({ connected }) => {
  const client = await connected();
  const channel = client.channels.get(unique('params'), { params: { nonsense: '1', agent: 'x/1' } });
  await soon(channel.attach(), 'attach');
  assert.deepEqual(Object.keys(channel.params ?? {}), []);
});

inBothFormats('the capability decides about attaching and publishing', async ({ connected }) => {
  const [own, read, write, other] = ['own', 'read', 'write', 'other'].map(unique);
  const client = await connected({
    token: jwt({ clientId: 'ivan', capability: { [own]: ['*'], [read]: ['subscribe'], [write]: ['publish'] } }),
  });
  await failsWith(client.channels.get(other).attach(), 40160, 401);
  await failsWith(client.channels.get(unique('never')).publish('a', 'b'), 40160, 401);
  await soon(client.channels.get(read).attach(), 'attach');
  await failsWith(client.channels.get(read).publish('a', 'b'), 40160, 401);
  await soon(client.channels.get(write).publish('a', 'b'), 'a publish');
  await failsWith(client.channels.get(write).history(), 40160, 401);
  await soon(client.channels.get(own).publish('a', 'b'), 'a publish');
  assert.equal(client.connection.state, 'connected');
});

// RTL17
inBothFormats('nothing is delivered after a detach, and what was missed is not', async ({ connected }) => {
  const client = await connected();
  const other = await connected();
  const name = unique('gone');
  const channel = client.channels.get(name);
  const box = await subscribed(channel);
  await soon(other.channels.get(name).publish('1', ''), 'a publish');
  await box.count(1);
  await soon(channel.detach(), 'detach');
  await soon(other.channels.get(name).publish('2', ''), 'a publish');
  await soon(channel.attach(), 'attach');
  await soon(other.channels.get(name).publish('3', ''), 'a publish');
  assert.deepEqual((await box.count(2)).map((m) => m.name), ['1', '3']);
});

inBothFormats('names of any kind are channels of their own', async ({ connected, rest }) => {
  const client = await connected();
  for (const name of ['a/b', 'this?is#an?encoding#channel', '测试 room', 'with%20percent', 'trailing:', ' ', '🙂', 'a,b;c=d&e']) {
    const whole = `${unique('odd')}${name}`;
    const box = await subscribed(client.channels.get(whole));
    await soon(rest().channels.get(whole).publish('over', 'REST'), 'a publish');
    assert.equal((await box.count(1))[0].data, 'REST', whole);
    assert.equal((await soon(rest().channels.get(whole).history(), 'history')).items.length, 1, whole);
  }
});

// RTL7f
inBothFormats('with echo off one hears the others only', async ({ connected }) => {
  const name = unique('echo');
  const silent = await connected({ echoMessages: false });
  const other = await connected();
  const box = await subscribed(silent.channels.get(name));
  const all = await subscribed(other.channels.get(name));
  await soon(silent.channels.get(name).publish('own', ''), 'a publish');
  await soon(other.channels.get(name).publish('other', ''), 'a publish');
  assert.deepEqual((await box.count(1)).map((m) => m.name), ['other']);
  assert.deepEqual((await all.count(2)).map((m) => m.name), ['own', 'other']);
});

inBothFormats('a subscription to one name gets that name only', async ({ connected }) => {
  const client = await connected();
  const channel = client.channels.get(unique('names'));
  const box = await subscribed(channel, 'wanted');
  for (const name of ['other', 'wanted', 'Wanted', 'wanted']) await soon(channel.publish(name, ''), 'a publish');
  await box.count(2);
  assert.equal(box.messages.length, 2);
});
