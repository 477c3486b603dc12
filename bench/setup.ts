import { spawnSync } from 'node:child_process'
import { parseArgs } from 'node:util'
import postgres from 'postgres'
import { startPostgres } from '../dev/postgres.ts'
import { USERS } from './load.ts'
import { SERVERS, type Server, startServer } from './server.ts'

export type Options = {
  /** Each figure is the median of so many loads. */
  rounds: number
  /** How long a load lasts. */
  seconds: number
  connections: number
  /** How long the load of pages lasts. */
  pagesSeconds: number
}

/** What all measurements share. */
export type Bench = Options & {
  stopping: AbortSignal
  database: { url: string; pid: number }
  /** Starts a server on the database; ended by `stopping` if it still runs then. */
  start(script: string, env?: NodeJS.ProcessEnv): Promise<Server>
  /** Leaves the users 1 to `count` in the database and no others. */
  fill(count?: number): Promise<void>
  /** Stops the database. */
  stop(): Promise<void>
}

/** @throws Error when an option is not a number above 0 */
export function parseOptions(args: string[]): Options {
  const { values } = parseArgs({
    args,
    options: {
      rounds: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '2' },
      connections: { type: 'string', default: '64' },
      'pages-seconds': { type: 'string', default: '60' },
    },
  })
  const number = (name: keyof typeof values) => {
    const value = Number(values[name])
    if (value > 0) return value
    throw new Error(`--${name} must be a number above 0.`)
  }
  return {
    rounds: number('rounds'),
    seconds: number('seconds'),
    connections: number('connections'),
    pagesSeconds: number('pages-seconds'),
  }
}

/** A PostgreSQL that keeps its promises (fsync is on), with the service's tables and no users. */
export async function setUp(options: Options, stopping: AbortSignal): Promise<Bench> {
  const server = await startPostgres({ settings: { shared_buffers: '256MB' } })
  const sql = postgres(server.url, { max: 1, onnotice: () => {} })
  const env = { DATABASE_URL: server.url }
  const stop = async () => {
    await sql.end({ timeout: 1 })
    await server.stop()
  }
  const migrated = spawnSync(process.execPath, [SERVERS['users-api'], 'migrate'], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  if (migrated.status !== 0) {
    await stop()
    throw new Error('The migrations could not be applied. Is it built? `npm run build`')
  }
  return {
    ...options,
    stopping,
    database: { url: server.url, pid: server.process.pid as number },
    start: (script, more = {}) => startServer(script, { ...env, ...more }, stopping),
    async fill(count = USERS) {
      await sql`delete from users where id > ${USERS}`
      await sql`
        insert into users (username, email)
        select 'user' || i, 'user' || i || '@example.com'
        from generate_series((select count(*) from users) + 1, ${count}::int) i`
      await sql`vacuum analyze users`
    },
    stop,
  }
}
