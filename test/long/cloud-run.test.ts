/** What Cloud Run asks of a container, for the built service with the environment of cloudrun/*.yaml. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { median } from '../../bench/report.ts'
import { FLAGS, SERVERS } from '../../bench/server.ts'
import { freePort, type Postgres, startPostgres } from '../../dev/postgres.ts'
import {
  api,
  CONCURRENCY,
  type Container,
  environmentOf,
  KILL_AFTER_MS,
  MAX_INSTANCES,
  migrate,
  STREAM_CONNECTIONS,
} from '../cloudrun/manifests.ts'
import { ROOT, run } from '../process.ts'

/** Longer than the time-outs for what is idle: of clients in the middle of a request, and of connections to PostgreSQL. */
const PAUSE_MS = 61_000
/** Longer than the second of them, and than a request's deadline. */
const LONG_IDLE_MS = 11_000
const WARM_UP_MS = 1000
const DRAIN_LOAD_MS = 500
const STARTS = 15
const LOAD_MS = 8000
const USERS = 20_000

let pg: Postgres
let admin: postgres.Sql
let folder: string
let secrets: Record<string, string>

/** The environment that the manifest gives a container, with the folder of the socket below ours. */
function environment(container: Container): Record<string, string> {
  const env = environmentOf(container, secrets)
  return { ...env, DB_HOST: folder + env.DB_HOST }
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'users-api-cloud-run-'))
  const sockets = folder + environmentOf(api, {}).DB_HOST
  mkdirSync(sockets, { recursive: true })
  // PostgreSQL may run as another user.
  chmodSync(folder, 0o755)
  chmodSync(sockets, 0o777)
  pg = await startPostgres({ settings: { fsync: 'off', max_connections: 100, unix_socket_directories: sockets } })
  symlinkSync(`.s.PGSQL.${pg.port}`, join(sockets, '.s.PGSQL.5432'))
  secrets = { 'users-owner-password': new URL(pg.url).password, 'users-api-password': 'of the API' }
  const server = postgres(pg.url, { max: 1, onnotice: () => {} })
  await server.unsafe(`create database ${environmentOf(api, secrets).DB_NAME}`)
  await server.end()
  admin = postgres(pg.url.replace(/\/postgres$/, `/${environmentOf(api, secrets).DB_NAME}`), { max: 1 })
}, 120_000)

afterAll(async () => {
  await admin.end()
  await pg.stop()
  rmSync(folder, { recursive: true })
})

const node = (args: string[], env: Record<string, string>) => run(process.execPath, [...FLAGS, ...args], env)

type Answer = { path: string; status: number; reused: boolean }

/** Asks once, on a connection that `agent` keeps or a new one; rejects when the connection is lost. */
const ask = (url: string, agent: Agent | false, { body, accept = '*/*' }: { body?: unknown; accept?: string } = {}) =>
  new Promise<Answer>((resolve, reject) => {
    const headers = { accept, ...(body !== undefined && { 'content-type': 'application/json' }) }
    const sent = request(url, { agent, method: body === undefined ? 'GET' : 'POST', headers }, (response) => {
      const { statusCode: status = 0 } = response
      response
        .on('error', reject)
        .on('end', () => resolve({ path: sent.path, status, reused: sent.reusedSocket }))
        .resume()
    })
    sent.on('error', reject).end(body === undefined ? undefined : JSON.stringify(body))
  })

/** The processes of PostgreSQL that serve the instances. */
async function connections(): Promise<number[]> {
  const rows = await admin`select pid from pg_stat_activity where application_name = 'users-api' order by pid`
  return rows.map(({ pid }) => Number(pid))
}

let created = 0
function newUser() {
  created++
  return { username: `new${created}`, email: `new${created}@example.com` }
}

/** What a mixed load asks for; of `CONCURRENCY` clients no more are streams than an instance takes at a time. */
function askSomething(url: string, agent: Agent, client: number): Promise<Answer> {
  if (client < STREAM_CONNECTIONS) return ask(`${url}/users`, agent, { accept: 'application/x-ndjson' })
  if (client === STREAM_CONNECTIONS) return ask(`${url}/readyz`, agent)
  if (client % 3 === 0) return ask(`${url}/users?limit=${client}`, agent)
  if (client % 3 === 1) return ask(`${url}/users/${client}`, agent)
  return ask(`${url}/users`, agent, { body: newUser() })
}

/** An instance as the platform starts it: with a port that it chooses. */
async function startInstance() {
  const port = await freePort()
  const platform = {
    PORT: String(port),
    K_SERVICE: 'users-api',
    K_REVISION: 'users-api-00001',
    K_CONFIGURATION: 'users-api',
  }
  // Streams and pauses take long here, and the log is looked at for all else.
  const quiet = { SLOW_REQUEST_MS: '0' }
  const instance = node([`${ROOT}dist/main.js`, 'serve'], { ...environment(api), ...platform, ...quiet })
  await instance.printed(/"message":"listening"/)
  const agent = new Agent({ keepAlive: true })
  onTestFinished(() => {
    agent.destroy()
    instance.process.kill('SIGCONT')
  })
  const url = `http://127.0.0.1:${port}`
  expect(await ask(`${url}/readyz`, agent)).toMatchObject({ status: 200 })
  /** Ends it as the platform does. */
  async function stop() {
    instance.process.kill('SIGTERM')
    const timer = setTimeout(() => instance.process.kill('SIGKILL'), KILL_AFTER_MS)
    const exit = await instance.exited
    clearTimeout(timer)
    return exit
  }
  return { ...instance, url, agent, stop }
}

type Instance = Awaited<ReturnType<typeof startInstance>>

/** As many clients as the platform lets in ask one instance until they are stopped; then says what was refused. */
function load({ url, agent }: Pick<Instance, 'url' | 'agent'>) {
  const failures = new Set<string>()
  let stopped = false
  async function client(number: number) {
    while (!stopped) {
      const { path, status } = await askSomething(url, agent, number)
      if (status !== 200 && status !== 201) failures.add(`${status} ${path}`)
    }
  }
  const clients = Promise.all(Array.from({ length: CONCURRENCY }, (_, i) => client(i)))
  return async function stop() {
    stopped = true
    await clients
    return [...failures]
  }
}

test('the job migrates with its environment, and again without a change', async () => {
  expect(await run('npm', ['run', 'build']).exited).toBe(0)
  for (const said of ['Migrations applied', 'The database is up to date']) {
    const job = node([`${ROOT}dist/main.js`, 'migrate'], environment(migrate))
    expect(await job.exited).toBe(0)
    expect(job.stdout()).toContain(said)
  }
  // A user who takes a second.
  await admin.unsafe(`
    create function wait() returns trigger language plpgsql as 'begin perform pg_sleep(1); return new; end';
    create trigger wait before insert on users for each row when (new.username = 'slow') execute function wait()`)
  await admin`insert into users (username, email) select 'u' || i, 'u' || i || '@example.com' from generate_series(1, ${USERS}) i`
})

test('an instance that was frozen answers at once, on the connections that it had', async () => {
  const { url, agent, process: child, output, stop } = await startInstance()
  const stopLoad = load({ url, agent })
  await sleep(WARM_UP_MS)
  expect(await stopLoad()).toEqual([])
  const logged = output()
  const before = await connections()
  expect(before.length).toBeGreaterThan(1)

  child.kill('SIGSTOP')
  await sleep(PAUSE_MS)
  // They come while it is frozen: on connections from before, and on new ones.
  const asked = [agent, false as const].flatMap((kept) => [
    ask(`${url}/users/1`, kept),
    ask(`${url}/users`, kept, { body: newUser() }),
    ask(`${url}/users?limit=10`, kept),
    ask(`${url}/readyz`, kept),
  ])
  child.kill('SIGCONT')
  const answers = await Promise.all(asked)
  expect(answers.map(({ status }) => status)).toEqual([200, 201, 200, 200, 200, 201, 200, 200])
  expect(answers.map(({ reused }) => reused)).toEqual([true, true, true, true, false, false, false, false])
  const after = await connections()
  expect(before.some((pid) => after.includes(pid))).toBe(true)
  expect(output()).toBe(logged)
  expect(await stop()).toBe(0)
})

test('what was under way when an instance was frozen gets its answer', async () => {
  const { url, agent, process: child, output, stop } = await startInstance()
  const logged = output()
  const answer = ask(`${url}/users`, agent, { body: { username: 'slow', email: 'slow@example.com' } })
  await expect.poll(() => admin`select pid from pg_stat_activity where wait_event = 'PgSleep'`).toHaveLength(1)
  child.kill('SIGSTOP')
  await sleep(LONG_IDLE_MS)
  child.kill('SIGCONT')
  expect(await answer).toMatchObject({ status: 201 })
  expect(await ask(`${url}/users`, agent, { body: newUser() })).toMatchObject({ status: 201 })
  expect(output()).toBe(logged)
  expect(await stop()).toBe(0)
})

test('an instance whose connections were cut while it was frozen answers, a write too', async () => {
  const { url, agent, process: child, stop } = await startInstance()
  expect(await ask(`${url}/users`, agent, { body: newUser() })).toMatchObject({ status: 201 })
  child.kill('SIGSTOP')
  await sleep(LONG_IDLE_MS)
  await admin`select pg_terminate_backend(pid, 30000) from pg_stat_activity where application_name = 'users-api'`
  const asked = [ask(`${url}/users`, agent, { body: newUser() }), ask(`${url}/users/1`, agent)]
  child.kill('SIGCONT')
  expect((await Promise.all(asked)).map(({ status }) => status)).toEqual([201, 200])
  expect(await stop()).toBe(0)
})

test('SIGTERM under load loses no request, and it ends within its 10 seconds', async () => {
  const instance = await startInstance()
  const stopLoad = load(instance)
  await sleep(WARM_UP_MS)
  const exited = instance.stop()
  await instance.printed(/"message":"stopping"/)
  // What the platform still sends until it knows that the instance is going.
  await sleep(DRAIN_LOAD_MS)
  // /readyz says that it is going.
  expect((await stopLoad()).filter((failure) => failure !== '503 /readyz')).toEqual([])
  expect(await exited).toBe(0)
  expect(instance.output()).not.toContain('unavailable')
})

test('a new instance answers first within 1.5 times what bare node:http with postgres.js takes', async () => {
  const { DB_NAME, DB_USER } = environment(api)
  const url = new URL(pg.url)
  Object.assign(url, { username: DB_USER, password: secrets['users-api-password'], pathname: `/${DB_NAME}` })
  const ours: number[] = []
  const bare: number[] = []
  const servers = [
    { script: SERVERS['users-api'], database: {}, times: ours },
    { script: SERVERS['bare node:http + postgres.js'], database: { DATABASE_URL: url.href }, times: bare },
  ]
  for (let i = 0; i < STARTS; i++) {
    for (const { script, database, times } of servers) {
      const port = await freePort()
      const start = performance.now()
      const server = node([script], { ...environment(api), ...database, PORT: String(port) })
      const first = () => ask(`http://127.0.0.1:${port}/users/1`, false).catch(() => undefined)
      while ((await first())?.status !== 200) await sleep(2)
      times.push(performance.now() - start)
      server.process.kill('SIGKILL')
      await server.exited
    }
  }
  expect(median(ours) / median(bare)).toBeLessThan(1.5)
})

test("all instances with all their requests keep to the table's connections, and each request is answered", async () => {
  const instances: Instance[] = []
  for (let i = 0; i < MAX_INSTANCES; i++) instances.push(await startInstance())
  const loads = instances.map(load)
  let most = 0
  for (const until = performance.now() + LOAD_MS; performance.now() < until; await sleep(50)) {
    most = Math.max(most, (await connections()).length)
  }
  expect((await Promise.all(loads.map((stop) => stop()))).flat()).toEqual([])
  expect(most).toBeGreaterThan(MAX_INSTANCES)
  expect(most).toBeLessThanOrEqual(MAX_INSTANCES * (Number(environment(api).DB_CONNECTIONS) + STREAM_CONNECTIONS))
  for (const { output } of instances) expect(output()).not.toContain('unavailable')
  expect(await Promise.all(instances.map(({ stop }) => stop()))).toEqual(instances.map(() => 0))
})
