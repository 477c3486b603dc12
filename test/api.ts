import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { expect } from 'vitest'
import { type AppOptions, createApp, fromDatabase } from '../src/app.ts'
import { parseConfig } from '../src/config.ts'
import type { Pool, PoolOptions } from '../src/db/pool.ts'
import { createDatabase } from '../src/db/replica.ts'
import { type ServerOptions, startServer } from '../src/server.ts'
import { createContract } from './contract.ts'
import { createTestDatabase, type TestDatabase } from './database.ts'

// biome-ignore lint/suspicious/noExplicitAny: tests look into bodies of every shape.
export type Answer = { status: number; headers: Headers; text: string; body: any }

export type Api = {
  url: string
  port: number
  /** Its own database; that of DATABASE_URL is whoever's gave it. */
  database: TestDatabase | undefined
  /** What the pool told of the database and of writes. */
  told: [of: string, reason: string | undefined][]
  /** What the metrics say of the pool. */
  state: Pool['state']
  /** Sends a request; a body that is an object goes as JSON. The answer is checked against /openapi.json. */
  request(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer>
  /** Sends bytes as they are and collects what comes back until the connection closes. */
  raw(bytes: string | Buffer): Promise<string>
  close(): Promise<void>
}

/**
 * The service as `serve` runs it, on a free port and a database of its own. `env` and `options` change what it is made
 * of; `make` puts it together, for a service with other resources.
 */
export async function startApi(
  env: Record<string, string> = {},
  options: Partial<AppOptions> = {},
  make: (options: AppOptions, db: Pool) => Promise<{ fetch: ServerOptions['fetch'] }> = createApp,
): Promise<Api> {
  const database = env.DATABASE_URL ? undefined : await createTestDatabase()
  const config = parseConfig({
    DATABASE_URL: database?.url,
    PORT: '0',
    HOST: '127.0.0.1',
    DRAIN_DELAY_MS: '0',
    STARTUP_WAIT_MS: '60000',
    ...env,
  })
  const stopping = new AbortController()
  const told: Api['told'] = []
  const onChange: PoolOptions['onChange'] = (of, failure) => told.push([of, failure?.message])
  const db = createDatabase({ ...config, applicationName: 'test', onChange })
  const log = pino({ level: 'silent' })
  const app = await make({ ...config, ...fromDatabase(db, log), log, stopping: stopping.signal, ...options }, db)
  await Promise.race([db.opened, sleep(config.STARTUP_WAIT_MS)])
  const server = await startServer({ ...config, fetch: app.fetch, stopping: stopping.signal })
  const url = `http://127.0.0.1:${server.port}`
  const check = createContract((await (await fetch(`${url}/openapi.json`)).json()) as never)

  return {
    url,
    port: server.port,
    database,
    told,
    state: db.state,
    async request(method, path, body, headers = {}) {
      const json = typeof body === 'object' && body !== null && !(body instanceof Uint8Array)
      const init: RequestInit = { method, headers: { ...(json && { 'content-type': 'application/json' }), ...headers } }
      if (body !== undefined) init.body = json ? JSON.stringify(body) : (body as string)
      const response = await fetch(url + path, init)
      const text = await response.text()
      const mediaType = response.headers.get('content-type')?.split(';')[0] ?? ''
      check(method, path, response.status, mediaType, text)
      const parsed = /[/+]json$/.test(mediaType) && text ? JSON.parse(text) : undefined
      return { status: response.status, headers: response.headers, text, body: parsed }
    },
    async raw(bytes) {
      const socket = connect(server.port, '127.0.0.1').setEncoding('utf8')
      let text = ''
      socket.on('data', (chunk) => (text += chunk)).on('error', () => {})
      socket.write(bytes)
      // Also where the service resets the connection, because it reads no more.
      await new Promise((resolve) => socket.on('close', resolve))
      return text
    },
    async close() {
      stopping.abort()
      await server.stop()
      await db.close(1000)
      await database?.drop()
    },
  }
}

/** The problem in a raw answer; fails where it is none. */
export function problemIn(answer: string) {
  const [head = '', body = ''] = answer.split('\r\n\r\n')
  expect(head).toMatch(/^content-type: application\/problem\+json$/im)
  const id = /^x-request-id: (.+)$/im.exec(head)?.[1]
  const parsed = JSON.parse(body)
  expect(parsed).toMatchObject({ type: 'about:blank', status: Number(head.split(' ')[1]), requestId: id })
  expect(parsed.title.length).toBeGreaterThan(3)
  return parsed as { status: number; detail: string }
}
