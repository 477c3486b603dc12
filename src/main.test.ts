import { once } from 'node:events'
import { Agent, get as httpGet } from 'node:http'
import { connect, createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startIssuer } from '../dev/issuer.ts'
import { freePort } from '../dev/postgres.ts'
import { addressOf, createTestDatabase, type TestDatabase } from '../test/database.ts'
import { main, run } from '../test/process.ts'
import { startProxy } from '../test/proxy.ts'
import { settings } from './config.ts'

let database: TestDatabase
beforeAll(async () => {
  database = await createTestDatabase()
})
afterAll(() => database.drop())

const start = (env: Record<string, string>) =>
  main(['serve'], { DATABASE_URL: database.url, PORT: '0', HOST: '127.0.0.1', DRAIN_DELAY_MS: '0', ...env })

async function serve(env: Record<string, string> = {}) {
  const api = start(env)
  const [, port] = await api.printed(/"port":(\d+),"msg":"listening"/)
  return { ...api, port: Number(port), url: `http://127.0.0.1:${port}` }
}

describe('the command line', () => {
  test('--help names the commands and every setting', async () => {
    const help = main(['--help'])
    expect(await help.exited).toBe(0)
    const words = help.stdout().split(/\s+/)
    expect(words).toEqual(
      expect.arrayContaining(['serve', 'migrate', 'ensure-secret', ...settings.map(({ name }) => name)]),
    )
  })

  test.each([
    [['frobnicate'], {}, '"frobnicate" is not a command'],
    [['serve', 'now'], {}, '"serve now" is not a command'],
    [['--port=3'], {}, '"--port=3" is not a command'],
    [[], { PORT: 'abc' }, 'PORT must be a whole number from 0 to 65535.'],
    [['migrate'], { DATABASE_URL: 'http://x' }, 'DATABASE_URL cannot be read: it must be like postgres://'],
  ])('%j %j is one sentence on stderr and exit code 2', async (args, env, sentence) => {
    const wrong = main(args, env as Record<string, string>)
    expect(await wrong.exited).toBe(2)
    expect(wrong.stdout()).toBe('')
    expect(wrong.stderr()).toContain(sentence)
    expect(wrong.stderr().trimEnd().split('\n')).toHaveLength(1)
  })

  test('a port that is taken is one sentence and exit code 1', async () => {
    const other = createServer().listen(0, '127.0.0.1')
    await once(other, 'listening')
    const { port } = other.address() as { port: number }
    const api = main([], { DATABASE_URL: database.url, PORT: String(port), HOST: '127.0.0.1' })
    expect(await api.exited).toBe(1)
    expect(api.stderr()).toMatch(new RegExp(`^users-api: .*${port}.*\n$`))
    other.close()
  })
})

describe('starting', () => {
  /** The database's URL by way of a proxy on this port. */
  const through = (port: number) => {
    const url = new URL(database.url)
    url.port = String(port)
    return url.href
  }

  test('serves although the database is down, says so, and recovers when it comes', async () => {
    const port = await freePort()
    const api = await serve({ DATABASE_URL: through(port), STARTUP_WAIT_MS: '200' })
    expect((await fetch(`${api.url}/readyz`)).status).toBe(503)
    const answer = await fetch(`${api.url}/users`)
    expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '1'])
    expect((await fetch(`${api.url}/livez`)).status).toBe(200)

    const network = await startProxy(addressOf(database.url).port, port)
    await api.printed(/database available/)
    expect((await fetch(`${api.url}/readyz`)).status).toBe(200)
    expect((await fetch(`${api.url}/users`)).status).toBe(200)
    api.process.kill('SIGTERM')
    expect(await api.exited).toBe(0)
    network.close()
  })

  test('listens as soon as the database answers, and not before', async () => {
    const network = await startProxy(addressOf(database.url).port)
    network.silence(true)
    const api = start({ DATABASE_URL: through(network.port), STARTUP_WAIT_MS: '3600000' })
    await api.printed(/database unavailable/)
    expect(api.stdout()).not.toContain('listening')
    network.silence(false)
    await api.printed(/listening/)
    api.process.kill('SIGTERM')
    expect(await api.exited).toBe(0)
    network.close()
  })

  test('ends at once on SIGTERM while it waits for the database, and never listens', async () => {
    const network = await startProxy(addressOf(database.url).port)
    network.silence(true)
    const api = start({ DATABASE_URL: through(network.port), STARTUP_WAIT_MS: '3600000' })
    await api.printed(/database unavailable/)
    api.process.kill('SIGTERM')
    expect(await api.exited).toBe(0)
    expect(api.stdout()).toContain('"msg":"stopped"')
    expect(api.stdout()).not.toContain('listening')
    network.close()
  })

  test('says to run `migrate` where the tables are not there, and is ready when it has run', async () => {
    const empty = await createTestDatabase({ empty: true })
    const api = await serve({ DATABASE_URL: empty.url })
    expect((await fetch(`${api.url}/readyz`)).status).toBe(503)
    expect((await fetch(`${api.url}/readyz`)).status).toBe(503)
    expect(await main(['migrate'], { DATABASE_URL: empty.url }).exited).toBe(0)
    expect((await fetch(`${api.url}/readyz`)).status).toBe(200)
    expect(api.stdout().match(/run `migrate`/g)).toHaveLength(1)
    api.process.kill('SIGTERM')
    expect(await api.exited).toBe(0)
    await empty.drop()
  })

  test('does not wait for a silent database for longer than STARTUP_WAIT_MS', async () => {
    const network = await startProxy(addressOf(database.url).port)
    network.silence(true)
    const api = await serve({ DATABASE_URL: through(network.port), STARTUP_WAIT_MS: '200' })
    api.process.kill('SIGTERM')
    expect(await api.exited).toBe(0)
    network.close()
  })
})

describe('authentication', () => {
  test('is off unless it is set, and a line says so', async () => {
    const api = await serve()
    expect((await fetch(`${api.url}/users`)).status).toBe(200)
    expect(api.stdout().match(/"level":"warn".*"msg":"authentication is off: [^"]+"/g)).toHaveLength(1)
    api.process.kill('SIGTERM')
    expect(await api.exited).toBe(0)
  })

  test('takes the tokens of the issuer that is set, and says when its keys cannot be had', async () => {
    const issuer = await startIssuer()
    const token = await issuer.sign({ scope: 'users:read' })
    const api = await serve(issuer.env)
    const statusWith = async (headers: Record<string, string>) => (await fetch(`${api.url}/users`, { headers })).status
    expect(await statusWith({})).toBe(401)
    expect(await statusWith({ authorization: `Bearer ${token}` })).toBe(200)
    expect(api.stdout()).not.toContain('authentication is off')
    expect(api.stdout()).not.toContain('unavailable')
    api.process.kill('SIGTERM')
    expect(await api.exited).toBe(0)
    await issuer.close()
    const alone = await serve(issuer.env)
    await alone.printed(/"level":"warn".*"issuer":"http:[^"]+","reason":"ECONNREFUSED","msg":"keys unavailable"/)
    const refused = await fetch(`${alone.url}/users`, { headers: { authorization: `Bearer ${token}` } })
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '10'])
    expect((await fetch(`${alone.url}/readyz`)).status).toBe(200)
    alone.process.kill('SIGTERM')
    expect(await alone.exited).toBe(0)
  })
})

test('a mistake that nobody caught ends it with 1, and the log has where it was, without its text', async () => {
  const script = 'process.on("SIGUSR2", () => { throw new Error("of " + "ali" + "ce") })'
  const env = { DATABASE_URL: database.url, PORT: '0', HOST: '127.0.0.1' }
  const api = run(process.execPath, ['--import', `data:text/javascript,${script}`, 'src/main.ts'], env)
  await api.printed(/"msg":"listening"/)
  api.process.kill('SIGUSR2')
  expect(await api.exited).toBe(1)
  expect(api.output()).toMatch(/"level":"fatal".*"name":"Error","stack":\[".*"msg":"crashed"/)
  expect(api.output()).not.toContain('alice')
})

describe('stopping', () => {
  test('on SIGTERM it keeps answering for a moment, says 503 on /readyz, closes connections, and ends with 0', async () => {
    const api = await serve({ DRAIN_DELAY_MS: '700' })
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    const get = async (path: string) => {
      const request = httpGet(api.url + path, { agent })
      const [response] = await once(request, 'response')
      response.resume()
      await once(response, 'end')
      return { status: response.statusCode, connection: response.headers.connection }
    }
    expect(await get('/users')).toEqual({ status: 200, connection: 'keep-alive' })
    api.process.kill('SIGTERM')
    await api.printed(/"msg":"stopping"/)
    expect(await get('/readyz')).toEqual({ status: 503, connection: 'close' })
    expect(await get('/users')).toEqual({ status: 200, connection: 'close' })
    expect(await get('/livez')).toEqual({ status: 200, connection: 'close' })
    expect(await api.exited).toBe(0)
    expect(api.stderr()).toBe('')
    agent.destroy()
  })

  test('answers what is under way before it ends', async () => {
    const api = await serve({ DEADLINE_MS: '60000' })
    await database.sql`insert into users (username, email) values ('locked', 'locked@example.com')`
    const [row] = await database.sql`select id from users where username = 'locked'`
    let answer: Promise<Response> | undefined
    await database.sql.begin(async (transaction) => {
      await transaction`select 1 from users where id = ${row?.id} for update`
      answer = fetch(`${api.url}/users/${row?.id}`, { method: 'DELETE' })
      await expect
        .poll(
          () =>
            database.sql`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
        )
        .toHaveLength(1)
      api.process.kill('SIGINT')
      await api.printed(/"msg":"stopping"/)
      await sleep(300)
    })
    expect((await answer)?.status).toBe(204)
    expect(await api.exited).toBe(0)
  })

  test('ends as soon as a stream that was under way has ended', async () => {
    await database.sql`insert into users (username, email) select 'many' || i, 'many' || i || '@example.com' from generate_series(1, 5000) i`
    const api = await serve()
    const agent = new Agent({ keepAlive: true })
    const request = httpGet(`${api.url}/users`, { agent, headers: { accept: 'application/x-ndjson' } })
    const [response] = await once(request, 'response')
    api.process.kill('SIGTERM')
    await api.printed(/"msg":"stopping"/)
    await sleep(200)
    const since = performance.now()
    response.resume()
    await once(response, 'end')
    expect(await api.exited).toBe(0)
    expect(performance.now() - since).toBeLessThan(5000)
    agent.destroy()
  })

  test('cuts what does not end within the deadline', async () => {
    const api = await serve({ SHUTDOWN_TIMEOUT_MS: '500', REQUEST_TIMEOUT_MS: '30000' })
    const socket = connect(api.port, '127.0.0.1')
    socket.write(
      'POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n',
    )
    // "100 Continue": it waits for the body.
    await once(socket, 'data')
    const since = performance.now()
    api.process.kill('SIGTERM')
    expect(await api.exited).toBe(0)
    // Without SHUTDOWN_TIMEOUT_MS it would take one of the other time-outs.
    expect(performance.now() - since).toBeLessThan(20_000)
    socket.destroy()
  })

  test('ends at once on a second signal', async () => {
    const api = await serve({ DRAIN_DELAY_MS: '20000' })
    api.process.kill('SIGTERM')
    await api.printed(/"msg":"stopping"/)
    api.process.kill('SIGTERM')
    expect(await api.exited).toBe(1)
  })
})
