// Messages that are changed and annotated after they were published: over realtime and REST, and
// who may.

import assert from 'node:assert/strict';
import { failsWith, httpURL, inBothFormats, inbox, soon, unique } from './helpers.mjs';

/** Makes an app with a namespace whose messages can be changed, and returns its keys. */
async function app(...capabilities) {
  const response = await fetch(`${httpURL}/apps`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({
      keys: [{}, ...capabilities.map((c) => ({ capability: JSON.stringify({ '*': c }) }))],
      namespaces: [{ id: 'mutable', mutableMessages: true }],
    }),
  });
  assert.equal(response.status, 201);
  return (await response.json()).keys.map((k) => k.keyStr);
}

inBothFormats('a message is updated, appended to and deleted, and its versions can be read', async ({ rest, connected }) => {
  const [key] = await app();
  const name = unique('mutable:changed');
  const realtime = await connected({ key });
  const channel = realtime.channels.get(name);
  const got = inbox();
  await soon(channel.subscribe(got.listener), 'the subscription');
  const stored = rest({ key }).channels.get(name);

  const { serials } = await soon(channel.publish({ name: 'n', data: 'one', extras: { headers: { a: 1 } } }), 'the publish');
  await got.count(1);
  const message = got.messages[0];
  assert.equal(message.serial, serials[0]);
  for (const [client, n] of [
    [channel, 1],
    [stored, 4],
  ]) {
    const operation = { description: 'why', metadata: { k: 'v' } };
    const updated = await soon(client.updateMessage({ ...message, data: 'two' }, operation), 'the update');
    const appended = await soon(client.appendMessage({ serial: message.serial, data: '+' }), 'the append');
    const deleted = await soon(client.deleteMessage({ serial: message.serial }), 'the delete');
    await got.count(n + 3);
    assert.deepEqual(
      got.messages.slice(n).map((m) => [m.action, m.data, m.name, m.serial, m.version.serial, m.extras.headers.a]),
      [
        ['message.update', 'two', 'n', message.serial, updated.versionSerial, 1],
        ['message.append', '+', 'n', message.serial, appended.versionSerial, 1],
        ['message.delete', 'two+', 'n', message.serial, deleted.versionSerial, 1],
      ],
    );
    assert.equal(got.messages[n].version.description, 'why');
    assert.deepEqual(got.messages[n].version.metadata, { k: 'v' });
    assert.equal(got.messages[n].timestamp, message.timestamp);
  }
  const now = await soon(stored.getMessage(message.serial), 'the message');
  assert.deepEqual([now.action, now.data], ['message.delete', 'two+']);
  const history = await soon(stored.history(), 'the history');
  assert.deepEqual(
    history.items.map((m) => [m.serial, m.action, m.data, m.version.serial]),
    [[message.serial, 'message.delete', 'two+', now.version.serial]],
  );
  const actions = [];
  for (let page = await soon(stored.getMessageVersions(message.serial, { limit: 2 }), 'a page'); page; page = await soon(page.next(), 'a page')) {
    actions.push(...page.items.map((m) => m.action));
  }
  assert.deepEqual(actions, ['message.create', 'message.update', 'message.delete', 'message.update', 'message.delete']);
});

inBothFormats('who comes in the middle of a stream of appends has all of it in the end', async ({ connected }) => {
  const [key] = await app();
  const name = unique('mutable:stream');
  const parts = Array.from({ length: 60 }, (_, i) => `${i};`);
  const writers = await Promise.all([connected({ key }), connected({ key })]);
  const { serials } = await soon(writers[0].channels.get(name).publish('n', '.'), 'the publish');
  const [serial] = serials;

  /** Puts together what a client is sent, and tells when it ends with a text. */
  const reading = (channel) => {
    const reader = { text: undefined, wake: () => {} };
    channel.subscribe((m) => {
      if (m.action !== 'message.append') reader.text = m.data;
      else reader.text = reader.text === undefined ? `no beginning, ${m.data}` : reader.text + m.data;
      reader.wake();
    });
    reader.ends = (text) =>
      soon(
        (async () => {
          while (!reader.text?.endsWith(text)) await new Promise((resolve) => (reader.wake = resolve));
        })(),
        `${text} at the end of ${reader.text}`,
      );
    return reader;
  };

  const clients = await Promise.all([connected({ key }), connected({ key }), connected({ key })]);
  const early = reading(clients[0].channels.get(name));
  await soon(clients[0].channels.get(name).attach(), 'the attachment');
  const appends = [];
  const readers = [early];
  for (const [i, part] of parts.entries()) {
    appends.push(writers[i % 2].channels.get(name).appendMessage({ serial, data: part }));
    if (i === 20) readers.push(reading(clients[1].channels.get(name)));
    if (i === 40) readers.push(reading(clients[2].channels.get(name, { params: { rewind: '1', appendMode: 'full' } })));
    if (i % 10 === 0) await soon(Promise.all(appends), 'the appends');
  }
  await soon(Promise.all(appends), 'the appends');
  for (const client of clients) await soon(client.channels.get(name).attach(), 'the attachment');
  await soon(writers[0].channels.get(name).appendMessage({ serial, data: 'end' }), 'the last append');
  for (const reader of readers) await reader.ends('end');
  for (const reader of readers) assert.equal(reader.text, early.text);
  assert.deepEqual(early.text.slice(1).split(';').slice(0, -1).map(Number).sort((a, b) => a - b), parts.map((_, i) => i));
});

inBothFormats('messages are annotated, and all are told what the annotations come to', async ({ rest, connected }) => {
  const [key] = await app();
  const name = unique('mutable:annotated');
  const ann = (await connected({ key, clientId: 'ann' })).channels.get(name, {
    modes: ['publish', 'subscribe', 'annotation_publish', 'annotation_subscribe'],
  });
  const bob = rest({ key, clientId: 'bob' }).channels.get(name);
  const messages = inbox();
  const annotations = inbox();
  await soon(ann.subscribe(messages.listener), 'the subscription');
  await soon(ann.annotations.subscribe(annotations.listener), 'the subscription');
  const { serials } = await soon(ann.publish('n', 'x'), 'the publish');
  const [serial] = serials;

  await soon(ann.annotations.publish(serial, { type: 'r:unique.v1', name: 'like' }), 'an annotation');
  await soon(bob.annotations.publish(serial, { type: 'r:unique.v1', name: 'like' }), 'an annotation');
  await soon(bob.annotations.publish(serial, { type: 'r:multiple.v1', name: 'clap', count: 3 }), 'an annotation');
  await soon(ann.annotations.publish(serial, { type: 'r:total.v1' }), 'an annotation');
  await soon(ann.annotations.publish(serial, { type: 'r:flag.v1', data: { why: 1 } }), 'an annotation');
  await soon(ann.annotations.delete(serial, { type: 'r:unique.v1', name: 'like' }), 'the end of an annotation');
  await soon(bob.annotations.publish(serial, { type: 'r:distinct.v1', name: 'a' }), 'an annotation');
  await annotations.count(7);
  assert.deepEqual(
    annotations.messages.map((a) => [a.action, a.clientId, a.type, a.name, a.count]),
    [
      ['annotation.create', 'ann', 'r:unique.v1', 'like', undefined],
      ['annotation.create', 'bob', 'r:unique.v1', 'like', undefined],
      ['annotation.create', 'bob', 'r:multiple.v1', 'clap', 3],
      ['annotation.create', 'ann', 'r:total.v1', undefined, undefined],
      ['annotation.create', 'ann', 'r:flag.v1', undefined, undefined],
      ['annotation.delete', 'ann', 'r:unique.v1', 'like', undefined],
      ['annotation.create', 'bob', 'r:distinct.v1', 'a', undefined],
    ],
  );
  assert.deepEqual(annotations.messages[4].data, { why: 1 });
  const want = {
    'r:unique.v1': { like: { total: 1, clientIds: ['bob'], clipped: false } },
    'r:multiple.v1': { clap: { total: 3, clientIds: { bob: 3 }, totalUnidentified: 0, totalClientIds: 1, clipped: false } },
    'r:total.v1': { total: 1 },
    'r:flag.v1': { total: 1, clientIds: ['ann'], clipped: false },
    'r:distinct.v1': { a: { total: 1, clientIds: ['bob'], clipped: false } },
  };
  for (let n = 1; ; n++) {
    await messages.count(n);
    const m = messages.messages[n - 1];
    assert.deepEqual([m.serial, m.action], [serial, n === 1 ? 'message.create' : 'message.summary']);
    if (m.annotations.summary['r:distinct.v1']) break;
  }
  assert.deepEqual(messages.messages.at(-1).annotations.summary, want);
  assert.deepEqual((await soon(bob.getMessage(serial), 'the message')).annotations.summary, want);
  assert.deepEqual((await soon(bob.history(), 'the history')).items[0].annotations.summary, want);
  const names = [];
  for (let page = await soon(bob.annotations.get(serial, { limit: 3 }), 'a page'); page; page = await soon(page.next(), 'a page')) {
    names.push(...page.items.map((a) => a.type));
  }
  assert.deepEqual(names, annotations.messages.map((a) => a.type));
});

inBothFormats('a change needs a rule and a right', async ({ rest, connected }) => {
  const [all, publisher, owner] = await app(['publish', 'subscribe', 'history'], ['publish', 'history', 'message-update-own']);
  for (const [key, name, code, statusCode] of [
    [all, 'plain', 93002, 400],
    [publisher, 'mutable:a', 40160, 401],
    [owner, 'mutable:a', 40166, 401],
  ]) {
    const realtime = await connected({ key });
    for (const client of [realtime, rest({ key })]) {
      const channel = client.channels.get(name);
      await soon(channel.publish('a', 'b'), 'a publish');
      const { items: [message] } = await soon(rest({ key: all }).channels.get(name).history({ limit: 1 }), 'history');
      await failsWith(channel.updateMessage({ ...message, data: 'c' }), code, statusCode);
      await failsWith(channel.appendMessage({ ...message, data: 'c' }), code, statusCode);
      await failsWith(channel.deleteMessage(message), key === owner ? 40160 : code, statusCode);
      const denied = key === all ? code : 40160;
      await failsWith(channel.annotations.publish(message, { type: 'reaction:total.v1' }), denied, statusCode);
    }
  }
  const bob = await connected({ key: owner, clientId: 'bob' });
  const [his, hers] = [bob.channels.get('mutable:a'), rest({ key: owner, clientId: 'eve' }).channels.get('mutable:a')];
  const { serials } = await soon(his.publish('a', 'b'), 'a publish');
  await soon(his.updateMessage({ serial: serials[0], data: 'c' }), 'an update of his own');
  await failsWith(hers.updateMessage({ serial: serials[0], data: 'd' }), 40160, 401);
});
