// What is asked for, and the clients that ask.
import { execFile } from 'node:child_process'
import { randomBytes, randomInt } from 'node:crypto'
import { once } from 'node:events'
import { promisify } from 'node:util'
import autocannon from 'autocannon'
import postgres from 'postgres'

/** Users in the database that are asked for; their ids start at 1. */
export const USERS = 100_000

export const ENDPOINTS = ['GET /users/{id}', 'GET /users?limit=100', 'POST /users'] as const
export type Endpoint = (typeof ENDPOINTS)[number]

/** So many clients, each with one request at a time, for so long. */
export type Load = { endpoint: Endpoint; connections: number; seconds: number }

/** How many answers came, how many a second, and the time within which 99 % came, in ms. */
export type Answers = { count: number; rate: number; p99: number }

const someId = () => randomInt(1, USERS + 1)
const newUser = () => {
  const username = randomBytes(9).toString('hex')
  return { username, email: `${username}@example.com` }
}

const REQUESTS: Record<Endpoint, autocannon.Request> = {
  'GET /users/{id}': { setupRequest: (request) => ({ ...request, path: `/users/${someId()}` }) },
  'GET /users?limit=100': { path: '/users?limit=100' },
  'POST /users': {
    method: 'POST',
    path: '/users',
    headers: { 'content-type': 'application/json' },
    setupRequest: (request) => ({ ...request, body: JSON.stringify(newUser()) }),
  },
}

const STATEMENTS: Record<Endpoint, (sql: postgres.Sql) => Promise<unknown>> = {
  'GET /users/{id}': (sql) => sql`select id, username, email, created_at, updated_at from users where id = ${someId()}`,
  'GET /users?limit=100': (sql) =>
    sql`select id, username, email, created_at, updated_at from users order by id limit 100`,
  'POST /users': (sql) =>
    sql`insert into users ${sql(newUser())} returning id, username, email, created_at, updated_at`,
}

/** The time within which 99 % of them came. */
const p99 = (times: number[]) => times.toSorted((a, b) => a - b)[Math.floor(times.length * 0.99)] ?? 0

/** @throws Error when any answer is not 2xx */
export async function request(url: string, { endpoint, connections, seconds }: Load): Promise<Answers> {
  const result = await autocannon({ url, connections, duration: seconds, requests: [REQUESTS[endpoint]] })
  if (result.non2xx + result.errors > 0) {
    throw new Error(`${endpoint}: ${result.non2xx} answers were not 2xx, ${result.errors} requests failed.`)
  }
  return { count: result['2xx'], rate: result.requests.average, p99: result.latency.p99 }
}

/** The same statements with no server: what the driver alone can do, on ten connections. */
export async function query(databaseUrl: string, { endpoint, connections, seconds }: Load): Promise<Answers> {
  const sql = postgres(databaseUrl, { max: 10 })
  const times: number[] = []
  const until = performance.now() + seconds * 1000
  const client = async () => {
    for (let now = performance.now(); now < until; ) {
      await STATEMENTS[endpoint](sql)
      const done = performance.now()
      times.push(done - now)
      now = done
    }
  }
  await Promise.all(Array.from({ length: connections }, client))
  await sql.end()
  return { count: times.length, rate: times.length / seconds, p99: p99(times) }
}

/** Sends more than the server takes at a time; only the 503s count. */
export async function refusals(url: string, { endpoint, connections, seconds }: Load): Promise<Answers> {
  const load = autocannon({ url, connections, duration: seconds, requests: [REQUESTS[endpoint]] }, () => {})
  const times: number[] = []
  load.on('response', (_client, status, _bytes, ms) => status === 503 && times.push(ms))
  await once(load, 'done')
  return { count: times.length, rate: times.length / seconds, p99: p99(times) }
}

/** Reads every user as a stream; how many lines came. */
export async function readAll(url: string, stopping: AbortSignal): Promise<number> {
  const command = `curl -sN -H 'Accept: application/x-ndjson' ${url}/users | wc -l`
  const { stdout } = await promisify(execFile)('sh', ['-c', command], { signal: stopping })
  return Number(stdout)
}
