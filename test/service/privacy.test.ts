import { once } from 'node:events'
import { connect } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { startIssuer } from '../../dev/issuer.ts'
import { addressOf, createTestDatabase, waitingForLock } from '../database.ts'
import { startProxyTo } from '../proxy.ts'
import { serve, startCollector } from '../service.ts'

/** Part of every value that a client sends here. */
const MARK = 'xq7marked'
const EMAIL = `${MARK}@example.com`
const json: Record<string, string> = { 'content-type': 'application/json', cookie: `session=${MARK}` }
const user = (name = MARK) => JSON.stringify({ username: name, email: `${name}@example.com` })

test('no name, address, token, password or parameter gets into the log, the metrics or the spans, whatever fails', async () => {
  const database = await createTestDatabase()
  const { sql } = database
  const { network, url } = await startProxyTo(database.url)
  const collector = await startCollector()
  const issuer = await startIssuer()
  onTestFinished(issuer.close)
  // Only the audit trail has a subject, and it is to have it.
  const token = (claims: object) =>
    issuer.sign({ sub: 'auditor', email: EMAIL, scope: `users:read users:write ${MARK}`, ...claims })
  const authorization = `Bearer ${await token({})}`
  const api = await serve({
    DATABASE_URL: url,
    LOG_LEVEL: 'trace',
    LOG_REQUESTS: '1',
    AUDIT_LOG: 'on',
    DEADLINE_MS: '1000',
    METRICS_PORT: '0',
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
    ...issuer.env,
  })
  const statuses: number[] = []
  const send = async (method: string, path: string, body?: string, headers = json) => {
    const all = { authorization, ...headers }
    const { status, text } = await fetch(api.url + path, { method, headers: all, ...(body && { body }) }).then(
      async (answer) => ({ status: answer.status, text: await answer.text() }),
    )
    statuses.push(status)
    return { status, text }
  }
  const raw = async (bytes: string) => {
    const socket = connect(api.port, '127.0.0.1').on('error', () => {})
    socket.end(bytes).resume()
    await once(socket, 'close')
  }

  /** Every route, with marked values wherever a client can put them. */
  async function everyRoute() {
    const found = JSON.parse((await send('GET', `/users?username=${MARK}`)).text).users
    const path = `/users/${found?.[0]?.id ?? 1}`
    await send('GET', `/users?email=${encodeURIComponent(EMAIL)}`)
    await send('GET', `/users?${MARK}=${MARK}&cursor=${MARK}`)
    await send('GET', '/users', undefined, { ...json, accept: 'application/x-ndjson' })
    await send('POST', '/users', user(`${MARK}${statuses.length}`), { ...json, 'idempotency-key': MARK })
    await send('POST', '/users', user())
    await send('POST', '/users', `{"username":"${MARK}","${MARK}":`)
    await send('POST', '/users', JSON.stringify({ username: MARK, email: MARK, [MARK]: MARK }))
    await send('PUT', path, user(`${MARK}put${statuses.length}`), { ...json, 'if-match': `"${MARK}"` })
    await send('PUT', path, user(`${MARK}put${statuses.length}`))
    await send('PATCH', path, JSON.stringify({ email: `${MARK}${statuses.length}@example.com` }))
    await send('GET', path, undefined, { ...json, traceparent: `00-${MARK}`, 'x-request-id': `${MARK} ${EMAIL}` })
    for (const method of ['GET', 'DELETE', 'OPTIONS', 'PUT']) {
      for (const other of [`/users/${MARK}`, `/${EMAIL}`, `/livez/${MARK}`, '/readyz', '/openapi.json']) {
        await send(method, `${other}?token=${MARK}`, method === 'PUT' ? user() : undefined)
      }
    }
    await send('DELETE', '/users/999999', undefined, { ...json, 'if-none-match': MARK })
    const refused = [{ scope: MARK }, { exp: 0 }, { iss: MARK }, { aud: MARK }, { sub: `${MARK}${'x'.repeat(300)}` }]
    for (const bad of [MARK, `${MARK}.${MARK}.${MARK}`, ...(await Promise.all(refused.map(token)))]) {
      await send('GET', path, undefined, { ...json, authorization: `Bearer ${bad}` })
    }
    await raw(`GET /${MARK} HTTP/1.1\r\nHost: ${MARK}\r\nHost: ${MARK}\r\nConnection: close\r\n\r\n`)
    await raw(`${MARK} / HTTP/1.1\r\n\r\n`)
  }

  await send('POST', '/users', user())
  await everyRoute()
  // PostgreSQL's detail has the failing row, and a trigger may say anything.
  await sql.unsafe(`alter table users add constraint short check (length(username) < 5) not valid`)
  await everyRoute()
  await sql.unsafe('alter table users drop constraint short')
  await sql.unsafe(`create function refuse() returns trigger language plpgsql as $$
    begin raise exception 'refused %', new.email using detail = new.username, hint = new.email; end $$`)
  await sql.unsafe('create trigger refuse before insert or update on users for each row execute function refuse()')
  await everyRoute()
  await sql.unsafe(`create or replace function refuse() returns trigger language plpgsql as $$
    begin raise exception 'refused %', new.email using errcode = '53100', detail = new.username; end $$`)
  await everyRoute()
  await sql.unsafe('drop trigger refuse on users')
  await sql.unsafe('alter table users rename column email to address')
  await everyRoute()
  await sql.unsafe('alter table users rename column address to email')
  // It has connections again: a change that waits for one longer than it may is not sent, and its outcome is known.
  await expect.poll(async () => (await send('PATCH', '/users/1', user(`${MARK}again`))).status).toBe(200)
  await sql.begin(async (transaction) => {
    await transaction`lock table users in access exclusive mode`
    await Promise.all([send('POST', '/users', user()), send('GET', `/users?email=${EMAIL}`)])
  })
  await sql.begin(async (transaction) => {
    await transaction`lock table users in access exclusive mode`
    const sent = Promise.all([send('POST', '/users', user()), send('GET', `/users?email=${EMAIL}`)])
    await waitingForLock(database, 2)
    const cutting = setInterval(() => network.cut(), 50)
    await sent
    clearInterval(cutting)
  })
  network.close()
  network.cut()
  await expect.poll(async () => (await send('GET', '/users')).status).toBe(503)
  await everyRoute()

  const metrics = await api.metrics()
  const output = await api.stop()
  const spans = collector.messages.map(({ text }) => text).join('\n')
  const password = addressOf(database.url).password
  for (const [name, text] of Object.entries({ output, metrics, spans })) {
    expect(text.length, name).toBeGreaterThan(1000)
    expect(text, name).not.toMatch(new RegExp(MARK, 'i'))
    // A part of each of its parts.
    for (const part of authorization.split(/[ .]/).slice(1)) expect(text, name).not.toContain(part.slice(-20))
    if (password) expect(text, name).not.toContain(password)
  }
  for (const status of [200, 201, 400, 401, 403, 404, 409, 422, 500, 503]) expect(statuses).toContain(status)
  expect(output).toContain('"code":"23514"')
  expect(output).toContain('"code":"P0001"')
  for (const outcome of ['done', 'unknown']) expect(output).toContain(`"outcome":"${outcome}"`)
  expect(spans).toContain('"stringValue":"P0001"')
  expect(metrics).toContain('error_type="23514"')
  await database.drop()
})
