// `npm run bench`: the built service beside a bare server and beside the driver with no server, in interleaved
// rounds on one PostgreSQL with its durability on. Prints the README's tables. Only ratios mean anything.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import autocannon from 'autocannon'
import postgres from 'postgres'
import { freePort, startPostgres } from '../dev/postgres.ts'

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '2' },
    connections: { type: 'string', default: '64' },
  },
})
const rounds = Number(values.rounds)
const duration = Number(values.seconds)
const connections = Number(values.connections)

const USERS = 100_000
const STREAMED_USERS = 1_000_000
const ENDPOINTS = ['GET /users/{id}', 'GET /users?limit=100', 'POST /users'] as const
type Endpoint = (typeof ENDPOINTS)[number]
type Figure = { rate: number; p99: number }

const median = (numbers: number[]) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] as number
const fill = (from: number, to: number) =>
  sql`insert into users (username, email) select 'user' || i, 'user' || i || '@example.com' from generate_series(${from}::int, ${to}::int) i`
const newUser = () => {
  const name = randomBytes(9).toString('hex')
  return { username: name, email: `${name}@example.com` }
}

async function start(script: string, settings = {}): Promise<{ process: ChildProcess; url: string }> {
  const port = await freePort()
  const env = { ...process.env, DATABASE_URL: pg.url, PORT: String(port), DRAIN_DELAY_MS: '0', ...settings }
  const server = spawn(process.execPath, [script], { env, stdio: ['ignore', 'ignore', 'inherit'] })
  const url = `http://127.0.0.1:${port}`
  while (!(await fetch(`${url}/users/1`).catch(() => undefined))?.ok) await sleep(20)
  return { process: server, url }
}

async function stop({ process: server }: { process: ChildProcess }) {
  server.kill('SIGTERM')
  await once(server, 'exit')
}

function requestTo(endpoint: Endpoint): autocannon.Request {
  if (endpoint === 'GET /users?limit=100') return { path: '/users?limit=100' }
  if (endpoint === 'GET /users/{id}') {
    return { setupRequest: (request) => ({ ...request, path: `/users/${1 + Math.floor(Math.random() * USERS)}` }) }
  }
  return {
    method: 'POST',
    path: '/users',
    headers: { 'content-type': 'application/json' },
    setupRequest: (request) => ({ ...request, body: JSON.stringify(newUser()) }),
  }
}

async function measure(url: string, endpoint: Endpoint, seconds = duration, clients = connections): Promise<Figure> {
  const requests = [requestTo(endpoint)]
  const result = await autocannon({ url, connections: clients, duration: seconds, requests })
  if (result.non2xx + result.errors > 0)
    throw new Error(`${endpoint}: ${result.non2xx} not 2xx, ${result.errors} errors`)
  return { rate: result.requests.average, p99: result.latency.p99 }
}

/** The same statements with no server: what the driver alone can do, on ten connections. */
async function driver(endpoint: Endpoint): Promise<Figure> {
  const client = postgres(pg.url, { max: 10 })
  const latencies: number[] = []
  const until = performance.now() + duration * 1000
  const once = () => {
    if (endpoint === 'GET /users?limit=100')
      return client`select id, username, email, created_at, updated_at from users order by id limit 100`
    if (endpoint === 'GET /users/{id}') {
      return client`select id, username, email, created_at, updated_at from users where id = ${1 + Math.floor(Math.random() * USERS)}`
    }
    return client`insert into users ${client(newUser())} returning id, username, email, created_at, updated_at`
  }
  await Promise.all(
    Array.from({ length: connections }, async () => {
      for (let now = performance.now(); now < until; ) {
        await once()
        const done = performance.now()
        latencies.push(done - now)
        now = done
      }
    }),
  )
  await client.end()
  latencies.sort((a, b) => a - b)
  return { rate: latencies.length / duration, p99: latencies[Math.floor(latencies.length * 0.99)] as number }
}

const residentMB = (pid: number) => Number(spawnSync('ps', ['-o', 'rss=', '-p', String(pid)]).stdout.toString()) / 1024

/** Reads every user; says how many lines came. */
async function readAll(url: string): Promise<number> {
  const curl = spawn('sh', ['-c', `curl -sN -H 'Accept: application/x-ndjson' ${url}/users | wc -l`])
  const exited = once(curl, 'exit')
  let text = ''
  for await (const chunk of curl.stdout) text += chunk
  await exited
  return Number(text)
}

/** Twice the clients that saturate it; and how long those wait for their 503 who are more than it takes at a time. */
async function overload() {
  const server = await start('dist/main.js')
  const ratios: number[] = []
  for (let round = 0; round < rounds; round++) {
    const saturated = await measure(server.url, 'GET /users/{id}')
    const twice = await measure(server.url, 'GET /users/{id}', duration, 2 * connections)
    ratios.push(twice.rate / saturated.rate)
  }
  await stop(server)
  const limited = await start('dist/main.js', { MAX_REQUESTS: String(connections / 2) })
  const requests = [requestTo('GET /users/{id}')]
  const load = autocannon({ url: limited.url, connections: 2 * connections, duration, requests }, () => {})
  const refused: number[] = []
  load.on('response', (_client, status, _bytes, ms) => status === 503 && refused.push(ms))
  await once(load, 'done')
  await stop(limited)
  const p99 = refused.toSorted((a, b) => a - b)[Math.floor(refused.length * 0.99)]
  console.log(
    `\n${2 * connections} connections: ${median(ratios).toFixed(2)} x the requests a second of ${connections}. With \`MAX_REQUESTS=${connections / 2}\` ${refused.length.toLocaleString('en')} of them were turned away, 99 % within ${p99?.toFixed(0)} ms.`,
  )
}

/** What a process takes at most while it streams every user, above what it takes now. */
async function streamMemory({ process: { pid }, url }: { process: ChildProcess; url: string }) {
  await sleep(1000)
  const idle = residentMB(pid as number)
  let peak = idle
  const watch = setInterval(() => {
    peak = Math.max(peak, residentMB(pid as number))
  }, 100)
  const lines = await readAll(url)
  clearInterval(watch)
  if (lines !== STREAMED_USERS) throw new Error(`The stream had ${lines} lines.`)
  return `${(peak - idle).toFixed(0)} MB (of ${idle.toFixed(0)} MB)`
}

/** Memory while every user is streamed, and the latency of others meanwhile. */
async function stream() {
  await fill(USERS + 1, STREAMED_USERS)
  const server = await start('dist/main.js')
  const fresh = await streamMemory(server)
  await measure(server.url, 'GET /users?limit=100')
  const used = await streamMemory(server)
  const ratios: number[] = []
  for (let round = 0; round < rounds; round++) {
    const alone = await measure(server.url, 'GET /users/{id}')
    const reading = readAll(server.url)
    const beside = await measure(server.url, 'GET /users/{id}')
    await reading
    ratios.push(beside.p99 / Math.max(alone.p99, 1))
  }
  await stop(server)
  console.log(
    `\n${STREAMED_USERS.toLocaleString('en')} users as ndjson: memory above that of a process that has just started ${fresh}, of one after other load ${used}; p99 of \`GET /users/{id}\` meanwhile ${median(ratios).toFixed(2)} x that without.`,
  )
}

const pg = await startPostgres({ settings: { shared_buffers: '256MB' } })
const sql = postgres(pg.url, { max: 1, onnotice: () => {} })
try {
  const migrated = spawnSync(process.execPath, ['dist/main.js', 'migrate'], {
    env: { ...process.env, DATABASE_URL: pg.url },
    stdio: 'inherit',
  })
  if (migrated.status !== 0) throw new Error('build first: npm run build')
  await fill(1, USERS)
  const servers = { 'users-api': 'dist/main.js', 'bare node:http + postgres.js': 'bench/bare.ts' }
  const figures = new Map<string, Map<Endpoint, Figure[]>>()
  const note = (name: string, endpoint: Endpoint, figure: Figure) => {
    const row = figures.get(name) ?? new Map<Endpoint, Figure[]>()
    figures.set(name, row)
    row.set(endpoint, [...(row.get(endpoint) ?? []), figure])
  }
  for (let round = 0; round < rounds; round++) {
    for (const [name, script] of Object.entries(servers)) {
      await sql`delete from users where id > ${USERS}`
      await sql`vacuum analyze users`
      const server = await start(script)
      await measure(server.url, 'GET /users/{id}', 1)
      for (const endpoint of ENDPOINTS) note(name, endpoint, await measure(server.url, endpoint))
      await stop(server)
    }
    for (const endpoint of ENDPOINTS) note('postgres.js alone', endpoint, await driver(endpoint))
  }
  console.log(
    `${connections} connections, median of ${rounds} interleaved rounds of ${duration} s: requests a second (p99)\n`,
  )
  console.log(`| | ${ENDPOINTS.map((endpoint) => `\`${endpoint}\``).join(' | ')} |\n| --- | --- | --- | --- |`)
  for (const [name, row] of figures) {
    const cells = ENDPOINTS.map((endpoint) => {
      const all = row.get(endpoint) ?? []
      return `${Math.round(median(all.map(({ rate }) => rate))).toLocaleString('en')} (${median(all.map(({ p99 }) => p99)).toFixed(0)} ms)`
    })
    console.log(`| ${name} | ${cells.join(' | ')} |`)
  }
  await sql`delete from users where id > ${USERS}`
  await overload()
  await stream()
} finally {
  await sql.end()
  await pg.stop()
}
