// Acontext's TypeScript SDK, unchanged, against the server at BASE_URL with API_KEY. Prints one line a step; exits 1 at the
// first that fails. Version 0.0.16 cannot patch, copy and filter yet: these steps use its `request` instead.

import assert from 'node:assert/strict';
import { AcontextClient, APIError } from '@acontext/acontext';

const client = new AcontextClient({ baseUrl: process.env.BASE_URL, apiKey: process.env.API_KEY });
const { sessions } = client;

const patchConfigs = async (id, configs) =>
  (await client.request('PATCH', `/session/${id}/configs`, { jsonData: { configs } })).configs;
const idsOf = async (params) => (await client.request('GET', '/session', { params })).items.map(({ id }) => id);
const matching = (filter, params = {}) => idsOf({ filter_by_configs: JSON.stringify(filter), ...params });
const refused = (status, message) => (error) => {
  assert(error instanceof APIError);
  assert.deepEqual([error.statusCode, error.code, error.message], [status, status, message]);
  return true;
};

const steps = {
  async 'ping'() {
    assert.equal(await client.ping(), 'pong');
  },

  async 'create without a body'() {
    const session = await sessions.create();
    assert.equal(session.configs, null);
    assert.equal(session.disable_task_tracking, false);
    await sessions.delete(session.id);
  },

  async 'create with configs, replace, patch, read'() {
    const { id } = await sessions.create({ configs: { agent: 'bot1', temperature: 0.7, old: 'x' }, disableTaskTracking: true });
    const replaced = { agent: 'bot1', model: 'm', old: 'y', deep: { a: 1, b: null } };
    assert.equal(await sessions.updateConfigs(id, { configs: replaced }), undefined);
    assert.deepEqual((await sessions.getConfigs(id)).configs, replaced);
    const merged = { agent: 'bot2', model: 'm', deep: { a: 2 }, temperature: 0.8 };
    assert.deepEqual(await patchConfigs(id, { agent: 'bot2', temperature: 0.8, old: null, deep: { a: 2 } }), merged);
    const session = await sessions.getConfigs(id);
    assert.deepEqual(session.configs, merged);
    assert.equal(session.disable_task_tracking, true);
    await sessions.delete(id);
  },

  async 'list, page by page, in both orders'() {
    const made = [];
    for (let n = 0; n < 5; n += 1) made.push((await sessions.create({ configs: { n } })).id);
    for (const [timeDesc, wanted] of [[false, made], [true, [...made].reverse()]]) {
      const met = [];
      let cursor;
      do {
        const page = await sessions.list({ limit: 2, timeDesc, cursor });
        met.push(...page.items.map(({ id }) => id));
        assert.equal(page.has_more, met.length < 5);
        cursor = page.next_cursor;
      } while (cursor);
      assert.deepEqual(met, wanted);
    }
    assert.equal((await sessions.list()).items.length, 5);
    for (const id of made) await sessions.delete(id);
    assert.deepEqual(await sessions.list(), { items: [], has_more: false });
  },

  async 'filter'() {
    const [one, two, three] = [
      await sessions.create({ configs: { agent: 'bot1', env: 'prod', runtime: { name: 'r1', version: '2.0' } } }),
      await sessions.create({ configs: { Agent: 'bot1', count: 1 } }),
      await sessions.create(),
    ].map(({ id }) => id);
    assert.deepEqual(await matching({ agent: 'bot1' }), [one]);
    assert.deepEqual(await matching({ agent: 'bot1', env: 'prod' }), [one]);
    assert.deepEqual(await matching({ runtime: { name: 'r1' } }), [one]);
    assert.deepEqual(await matching({ Agent: 'bot1' }), [two]);
    assert.deepEqual(await matching({ count: '1' }), []);
    assert.deepEqual(await matching({}, { time_desc: true }), [three, two, one]);
  },

  async 'a filter of a thousand CJK characters, and one that is too long'() {
    const text = Array.from({ length: 1000 }, (_, n) => String.fromCodePoint(0x4e00 + n)).join('');
    const { id } = await sessions.create({ configs: { text } });
    assert.deepEqual(await matching({ text }), [id]);
    const sentence = 'the request line is longer than 65536 bytes; send a shorter filter_by_configs';
    await assert.rejects(matching({ text: text.repeat(20) }), refused(414, sentence));
    await sessions.delete(id);
  },

  async 'copy, users, project configs'() {
    const { id } = await client.request('POST', '/session', { jsonData: { user: 'a/b', configs: { kind: 'copied' } } });
    const copied = await client.request('POST', `/session/${id}/copy`);
    assert.equal(copied.old_session_id, id);
    assert.deepEqual(await idsOf({ user: 'a/b' }), [id, copied.new_session_id]);
    const { counts } = await client.request('GET', `/user/${encodeURIComponent('a/b')}/resources`);
    assert.equal(counts.sessions_count, 2);
    await client.request('DELETE', `/user/${encodeURIComponent('a/b')}`);
    assert.deepEqual(await idsOf({ user: 'a/b' }), []);
    assert.deepEqual(await client.request('PATCH', '/project/configs', { jsonData: { a: 1, b: 2 } }), { a: 1, b: 2 });
    assert.deepEqual(await client.request('PATCH', '/project/configs', { jsonData: { a: null } }), { b: 2 });
  },

  async 'a session with a ttl'() {
    await client.request('PATCH', '/project/configs', { jsonData: { session_ttl: 3600 } });
    const { id } = await sessions.create({ configs: { a: 1 } });
    assert.deepEqual((await sessions.getConfigs(id)).configs, { a: 1 });
    assert((await sessions.list()).items.some((session) => session.id === id));
    await sessions.updateConfigs(id, { configs: { b: 1 } });
    await sessions.delete(id);
  },

  async 'calls that are not part of this service say so'() {
    const { id } = await sessions.create();
    const calls = {
      'messages are': [() => sessions.storeMessage(id, { role: 'user', content: 'hi' }), () => sessions.getMessages(id)],
      'tasks are': [() => sessions.getTasks(id)],
      'token counts are': [() => sessions.getTokenCounts(id)],
      'the observing status is': [() => sessions.messagesObservingStatus(id)],
      'flushing messages is': [() => sessions.flush(id)],
      'the learning status is': [() => sessions.getLearningStatus(id)],
      'spaces are': [
        () => sessions.connectToSpace(id, { spaceId: id }), () => client.spaces.list(), () => client.spaces.create(),
        () => client.blocks.list(id),
      ],
      'disks are': [() => client.disks.list(), () => client.disks.create()],
      'tools are': [() => client.tools.getToolName()],
    };
    for (const [start, all] of Object.entries(calls)) {
      for (const call of all) {
        await assert.rejects(call(), (error) => {
          assert(error instanceof APIError);
          assert.deepEqual([error.statusCode, error.payload.reason], [501, 'not_implemented']);
          assert(error.message.startsWith(`${start} not part of this service`), error.message);
          return true;
        });
      }
    }
    await sessions.delete(id);
  },

  async 'refusals reach the caller'() {
    const missing = '0190d1f2-5a3b-4c6d-8e7f-001122334455';
    await assert.rejects(sessions.getConfigs(missing), refused(404, 'session not found'));
    await assert.rejects(sessions.delete(missing), refused(404, 'session not found'));
    await assert.rejects(sessions.getConfigs('nope'), refused(400, 'invalid session_id'));
    await assert.rejects(sessions.list({ limit: 201 }), refused(400, 'limit must be a whole number from 1 to 200'));
    const stranger = new AcontextClient({ baseUrl: process.env.BASE_URL, apiKey: 'sk-ac-nope' });
    await assert.rejects(stranger.ping(), refused(401, 'Unauthorized'));
  },
};

for (const [name, step] of Object.entries(steps)) {
  await step();
  console.log(name);
}
console.log(`all ${Object.keys(steps).length} steps hold`);
