import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'
import { vi } from 'vitest'
import { freePort } from '../../dev/postgres.ts'
import { addressOf } from '../database.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** The suite of faults runs through PgBouncer. */
    throughPooler?: boolean
  }
}

/** The program, 1.24 or newer. PG in front of the name would make it one of libpq's, which tests do not see. */
const PGBOUNCER = process.env.POOLER || 'pgbouncer'

export type Pooler = {
  port: number
  /** Leaves its connections to PostgreSQL for new ones, as its operator does after a failover or a migration. */
  reconnect(): Promise<void>
  stop(): Promise<void>
}

/**
 * Starts PgBouncer in front of the PostgreSQL at `url`, with its defaults but for `settings`.
 * @param roles who may log in besides the user of `url`
 */
export async function startPooler(
  url: string,
  roles: { user: string; password: string }[],
  settings: Record<string, string | number>,
): Promise<Pooler> {
  const server = addressOf(url)
  const port = await freePort()
  const folder = mkdtempSync(join(tmpdir(), 'pgbouncer-'))
  const file = (name: string, lines: string[]) => writeFileSync(join(folder, name), `${lines.join('\n')}\n`)
  file(
    'users.txt',
    [server, ...roles].map(({ user, password }) => `"${user}" "${password}"`),
  )
  const own = {
    listen_addr: '127.0.0.1',
    listen_port: port,
    unix_socket_dir: '',
    auth_type: 'scram-sha-256',
    auth_file: join(folder, 'users.txt'),
    admin_users: server.user,
    // It refuses to run as root.
    ...(process.getuid?.() === 0 && { user: 'nobody' }),
    ...settings,
  }
  file('pgbouncer.ini', [
    '[databases]',
    `* = host=${server.host} port=${server.port}`,
    '[pgbouncer]',
    ...Object.entries(own).map(([name, value]) => `${name} = ${value}`),
  ])
  chmodSync(folder, 0o755)
  const child = spawn(PGBOUNCER, [join(folder, 'pgbouncer.ini')], { stdio: 'ignore' })
  await once(child, 'spawn')
  const exited = once(child, 'exit')

  async function command(text: string) {
    const admin = postgres({ ...server, port, database: 'pgbouncer', ssl: false, max: 1, fetch_types: false })
    try {
      return await admin.unsafe(text).simple()
    } finally {
      await admin.end({ timeout: 1 })
    }
  }
  await vi.waitFor(() => command('show version'), { timeout: 30_000 })

  return {
    port,
    async reconnect() {
      await command('reconnect')
    },
    async stop() {
      // Other signals wait for its clients.
      child.kill('SIGKILL')
      await exited
      rmSync(folder, { recursive: true })
    },
  }
}
