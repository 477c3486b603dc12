import { beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { events } from '../src/events.ts'
import type { Api } from './api.ts'

export type ResourceOptions = {
  /** The service, once it has started; it is closed by whoever started it. */
  api(): Api
  /** Where the collection is, such as '/users', and the member of a page that holds its rows. */
  path: string
  member: string
  /** A body of POST and PUT that is like no other. */
  input(): Record<string, unknown>
  /** A member that PATCH may change, with a value that is like no other. */
  change(): Record<string, unknown>
  /** A body that breaks a rule, and where. */
  invalid: { body: Record<string, unknown>; pointer: string }
}

/** What every resource of the service does. Each answer is checked against the description as well. */
export function testResource({ api, path, member, input, change, invalid }: ResourceOptions) {
  const request: Api['request'] = (...args) => api().request(...args)
  const json = { 'content-type': 'application/json' }
  const create = async (body = input()) => {
    const answer = await request('POST', path, body)
    expect(answer.status, answer.text).toBe(201)
    return answer.body as Record<string, unknown> & { id: number }
  }
  /** Every row by its pages. */
  async function all(limit: number) {
    const rows: { id: number }[] = []
    for (let next: string | null = `${path}?limit=${limit}`; next !== null; ) {
      const { body, headers } = await request('GET', next)
      rows.push(...body[member])
      next = /<(.+)>; rel="next"/.exec(headers.get('link') ?? '')?.[1] ?? null
      expect(next !== null).toBe(body.next !== null)
    }
    return rows
  }

  describe('creating and getting', () => {
    test('a new one has a place, a version, and what was sent', async () => {
      const body = input()
      const created = await request('POST', path, body)
      expect(created.status).toBe(201)
      expect(created.headers.get('location')).toBe(`${path}/${created.body.id}`)
      expect(created.headers.get('etag')).toBe('"1"')
      expect(created.body).toMatchObject(body)
      expect(created.body.createdAt).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
      expect(created.body.updatedAt).toBe(created.body.createdAt)
      const found = await request('GET', `${path}/${created.body.id}`)
      expect([found.status, found.headers.get('etag'), found.body]).toEqual([200, '"1"', created.body])
    })

    test('many that are asked for at once are each their own', async () => {
      const bodies = Array.from({ length: 40 }, input)
      const created = await Promise.all(bodies.map((body) => create(body)))
      expect(created).toMatchObject(bodies)
      const found = await Promise.all(created.map(({ id }) => request('GET', `${path}/${id}`)))
      expect(found.map(({ body }) => body)).toEqual(created)
    })

    test('what is not there is 404, what is no id 400, and another method 405', async () => {
      for (const id of ['999999', '99999999999999999999'])
        expect((await request('GET', `${path}/${id}`)).status).toBe(404)
      for (const id of ['0', '-1', 'x', '1.5', '01']) expect((await request('GET', `${path}/${id}`)).status).toBe(400)
      const { status, headers } = await request('DELETE', path)
      expect([status, headers.get('allow')]).toEqual([405, 'GET, HEAD, OPTIONS, POST'])
    })

    test('a body that breaks a rule is 422 with a pointer, and one that is no JSON 400', async () => {
      const { status, body } = await request('POST', path, invalid.body)
      expect([status, body.errors[0].pointer]).toEqual([422, invalid.pointer])
      expect((await request('POST', path, { ...input(), more: 1 })).body.errors).toMatchObject([{ pointer: '/more' }])
      expect((await request('POST', path, '{', json)).status).toBe(400)
      expect((await request('POST', path, 'a', { 'content-type': 'text/plain' })).status).toBe(415)
    })
  })

  describe('Idempotency-Key', () => {
    test('the same key and body get the same answer, another body 422, also when they come at once', async () => {
      const [body, key] = [input(), `key-${Math.random()}`]
      const headers = { ...json, 'idempotency-key': key }
      const answers = await Promise.all(Array.from({ length: 5 }, () => request('POST', path, body, headers)))
      const again = await request('POST', path, body, headers)
      expect(new Set([...answers, again].map(({ status, text }) => `${status} ${text}`)).size).toBe(1)
      expect(again.status).toBe(201)
      const other = await request('POST', path, input(), headers)
      expect([other.status, other.body.type]).toEqual([422, 'urn:problem-type:idempotency-key-reused'])
      expect((await request('POST', path, body, { ...json, 'idempotency-key': 'with space' })).status).toBe(400)
    })
  })

  describe('lines', () => {
    const ndjson = { 'content-type': 'application/x-ndjson' }
    const lines = (text: string) =>
      text
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line))

    test('are each created, or refused without the others, and what GET gives is a line as well', async () => {
      const bodies = [input(), invalid.body, input(), { ...input(), more: 1 }, '', { ...input(), id: 1, createdAt: '' }]
      const file = bodies.map((body) => (body === '' ? '' : JSON.stringify(body))).join('\n')
      const told: object[] = []
      const listen = (_: unknown, fields: object) => told.push(fields)
      events.on('changed', listen)
      onTestFinished(() => void events.off('changed', listen))
      const { status, text } = await request('POST', path, file, ndjson)
      const results = lines(text)
      expect([status, results.map(({ line, outcome }) => [line, outcome])]).toEqual([
        200,
        [
          [1, 'created'],
          [2, 'invalid'],
          [3, 'created'],
          [4, 'invalid'],
          [6, 'created'],
          [undefined, undefined],
        ],
      ])
      expect(results[1].errors[0].pointer).toBe(invalid.pointer)
      expect(results.at(-1)).toEqual({ lines: 5, created: 3, skipped: 0, conflict: 0, invalid: 2 })
      const ids = results.flatMap(({ id }) => id ?? [])
      expect((await request('GET', `${path}/${ids[1]}`)).body).toMatchObject(bodies[2] as object)
      const row = { operation: 'create', version: 1, outcome: 'done' }
      expect(told).toEqual(ids.map((id) => ({ ...row, [member.replace(/s$/, '')]: id })))
    })

    test('have no Idempotency-Key, and no query but onConflict', async () => {
      expect((await request('POST', path, '', { ...ndjson, 'idempotency-key': 'a' })).status).toBe(400)
      for (const query of ['onConflict=maybe', 'onConflict=skip&onConflict=skip', 'other=1']) {
        expect((await request('POST', `${path}?${query}`, '', ndjson)).status, query).toBe(400)
      }
      const none = { lines: 0, created: 0, skipped: 0, conflict: 0, invalid: 0 }
      expect(lines((await request('POST', `${path}?onConflict=skip`, '\n', ndjson)).text)).toEqual([none])
    })
  })

  describe('changing', () => {
    test('PUT replaces, PATCH changes what it names, and each makes a new version', async () => {
      const { id } = await create()
      const [body, patch] = [input(), change()]
      const put = await request('PUT', `${path}/${id}`, body)
      expect([put.status, put.headers.get('etag')]).toEqual([200, '"2"'])
      expect(put.body).toMatchObject(body)
      const merge = { 'content-type': 'application/merge-patch+json' }
      const patched = await request('PATCH', `${path}/${id}`, JSON.stringify(patch), merge)
      expect([patched.status, patched.headers.get('etag')]).toEqual([200, '"3"'])
      expect(patched.body).toMatchObject({ ...body, ...patch })
      const empty = await request('PATCH', `${path}/${id}`, {})
      expect([empty.status, empty.body]).toEqual([200, patched.body])
      for (const method of ['PUT', 'PATCH']) expect((await request(method, `${path}/999999`, input())).status).toBe(404)
    })

    test('If-Match and If-None-Match hold a change to a version', async () => {
      const { id } = await create()
      const put = (headers: Record<string, string>) => request('PUT', `${path}/${id}`, input(), { ...json, ...headers })
      expect((await put({ 'if-match': '"7"' })).status).toBe(412)
      expect((await put({ 'if-none-match': '"1"' })).status).toBe(412)
      expect((await put({ 'if-match': '"1"', 'if-none-match': '"7"' })).status).toBe(200)
      expect((await put({ 'if-match': '"1"' })).status).toBe(412)
      expect((await put({ 'if-match': 'nonsense' })).status).toBe(400)
      const get = (headers: Record<string, string>) => request('GET', `${path}/${id}`, undefined, headers)
      expect((await get({ 'if-none-match': '"2"' })).status).toBe(304)
      expect((await get({ 'if-none-match': '"1"' })).status).toBe(200)
      expect((await get({ 'if-match': '"1"' })).status).toBe(412)
      const remove = (version: string) => request('DELETE', `${path}/${id}`, undefined, { 'if-match': version })
      expect([(await remove('"1"')).status, (await remove('"2"')).status, (await remove('"2"')).status]).toEqual([
        412, 204, 404,
      ])
    })
  })

  test('the audit trail hears of each change once, and of nothing else', async () => {
    const told: object[] = []
    const listen = (_: unknown, fields: object) => told.push(fields)
    events.on('changed', listen)
    onTestFinished(() => void events.off('changed', listen))
    const [body, key] = [input(), { ...json, 'idempotency-key': `audited-${Math.random()}` }]
    const { id } = (await request('POST', path, body, key)).body
    const stale = { ...json, 'if-match': '"7"' }
    const statuses = [
      await request('POST', path, body, key),
      await request('POST', path, input(), key),
      await request('PATCH', `${path}/${id}`, {}),
      await request('PATCH', `${path}/${id}`, change(), stale),
      await request('PATCH', `${path}/${id}`, change()),
      await request('PUT', `${path}/${id}`, input()),
      await request('DELETE', `${path}/${id}`, undefined, stale),
      await request('DELETE', `${path}/${id}`),
      await request('DELETE', `${path}/${id}`),
    ].map(({ status }) => status)
    expect(statuses).toEqual([201, 422, 200, 412, 200, 200, 412, 204, 404])
    const row = { [member.replace(/s$/, '')]: id, outcome: 'done' }
    expect(told).toEqual([
      { ...row, operation: 'create', version: 1 },
      { ...row, operation: 'update', version: 2 },
      { ...row, operation: 'update', version: 3 },
      { ...row, operation: 'delete', version: 3 },
    ])
  })

  describe('several by their ids', () => {
    test('they come in the order asked, each once and without its version, and those that are missing are told', async () => {
      const [a, b, c] = [await create(), await create(), await create()]
      const ids = [c.id, 999_999, a.id, b.id, a.id, 999_998]
      const { status, body, headers } = await request('GET', `${path}?${ids.map((id) => `id=${id}`).join('&')}`)
      expect([status, body]).toEqual([200, { [member]: [c, a, b], next: null, missing: [999_999, 999_998] }])
      expect(headers.get('link')).toBeNull()
      expect((await request('GET', `${path}?id=${b.id}`)).body).toEqual({ [member]: [b], next: null, missing: [] })
    })

    test('up to 100 are asked for with one statement, and more are 400', async () => {
      const ids = Array.from({ length: 101 }, (_, i) => `id=${i + 1}`)
      const sizes: number[] = []
      const listen = (_: string, size: number) => void sizes.push(size)
      events.on('batch', listen)
      onTestFinished(() => void events.off('batch', listen))
      const { status, body } = await request('GET', `${path}?${ids.slice(1).join('&')}`)
      expect([status, body[member].length + body.missing.length, sizes]).toEqual([200, 100, [100]])
      const more = await request('GET', `${path}?${ids.join('&')}`)
      expect([more.status, more.body.detail]).toEqual([400, 'id must be given at most 100 times'])
    })

    test('what is no id, and another parameter or ndjson beside them, is 400', async () => {
      for (const id of ['0', '-1', 'x', '1.5', '01', '', '9007199254740992', '99999999999999999999']) {
        const { status, body } = await request('GET', `${path}?id=1&id=${id}`)
        expect([status, body.detail], id).toEqual([400, 'id/1 must be a whole number from 1 to 9007199254740991'])
      }
      const { next } = (await request('GET', `${path}?limit=1`)).body
      for (const other of ['limit=1', `cursor=${next}`]) {
        const { status, body } = await request('GET', `${path}?id=1&${other}`)
        expect([status, body.detail], other).toEqual([400, 'id goes with no other parameter'])
      }
      const lines = await request('GET', `${path}?id=1`, undefined, { accept: 'application/x-ndjson' })
      expect([lines.status, lines.body.detail]).toEqual([400, expect.stringContaining('id does not go with')])
    })
  })

  describe('listing', () => {
    beforeAll(async () => {
      await Promise.all(Array.from({ length: 25 }, () => create()))
    })

    test('the pages have every row once, by id, whatever their size', async () => {
      const rows = await all(1000)
      expect(rows.map(({ id }) => id)).toEqual(rows.map(({ id }) => id).toSorted((a, b) => a - b))
      expect(await all(7)).toEqual(rows)
    })

    test('a limit that is none, an unknown parameter and a broken cursor are 400', async () => {
      for (const query of ['limit=0', 'limit=1001', 'limit=x', 'cursor=x', 'limit=1&limit=2', 'other=1']) {
        expect((await request('GET', `${path}?${query}`)).status, query).toBe(400)
      }
    })

    test('ndjson has the same rows, all at once or after a cursor', async () => {
      const ndjson = { accept: 'application/x-ndjson' }
      const lines = ({ text }: { text: string }) =>
        text
          .trimEnd()
          .split('\n')
          .map((line) => JSON.parse(line))
      const rows = await all(1000)
      expect(lines(await request('GET', path, undefined, ndjson))).toEqual(rows)
      const { next } = (await request('GET', `${path}?limit=10`)).body
      expect(lines(await request('GET', `${path}?cursor=${next}`, undefined, ndjson))).toEqual(rows.slice(10))
      expect((await request('GET', `${path}?limit=1`, undefined, ndjson)).status).toBe(400)
    })
  })
}
