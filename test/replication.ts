import { spawnSync } from 'node:child_process'
import { cpSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import { expect } from 'vitest'
import { type Postgres, startPostgres } from '../dev/postgres.ts'
import { migrate } from '../src/db/migrate.ts'
import { addressOf } from './database.ts'
import { ROOT } from './process.ts'
import { type FaultyNetwork, startProxy } from './proxy.ts'

/** A PostgreSQL that can fail, behind a network that can. */
export type Server = {
  url: string
  network: FaultyNetwork
  /** Connected to it past the network. */
  admin: postgres.Sql
  /** SIGSTOP, SIGCONT or SIGKILL, for all of its processes. */
  signal(name: 'STOP' | 'CONT' | 'KILL'): void
  start(): Promise<void>
}

let count = 0

/** A primary, and replicas that stream from it, all with the migrations. */
export async function startReplication(names: [string, ...string[]] = ['replica']) {
  count++
  const folder = join(tmpdir(), `users-api-replication-${process.pid}-${count}`)
  const settings = { fsync: 'off', max_connections: 60 }
  const role = { user: 'users_api', password: 'p', deadlineMs: 5000 }
  const servers: (Server & { stop(): Promise<void> })[] = []

  async function serve(name: string, more: Record<string, string> = {}) {
    const dataDir = join(folder + name)
    let pg: Postgres = await startPostgres({ dataDir, settings: { ...settings, ...more } })
    const { port } = pg
    const network = await startProxy(port)
    const admin = postgres(pg.url, { max: 3, onnotice: () => {} })
    const server = {
      url: `postgres://${role.user}:${role.password}@127.0.0.1:${network.port}/postgres`,
      network,
      admin,
      signal(signal: string) {
        const { pid } = pg.process
        const children = spawnSync('pgrep', ['-P', String(pid)], { encoding: 'utf8' }).stdout.split('\n')
        spawnSync('kill', [`-${signal}`, String(pid), ...children.filter(Boolean)])
      },
      async start() {
        for (let i = 0; ; i++) {
          try {
            pg = await startPostgres({ dataDir, port, settings: { ...settings, ...more } })
            return
          } catch (error) {
            // Its children may still hold the memory of one that was killed.
            if (i === 50) throw error
            await sleep(100)
          }
        }
      },
      async stop() {
        network.close()
        await admin.end({ timeout: 1 })
        await pg.stop()
        rmSync(dataDir, { recursive: true, force: true })
      },
    }
    servers.push(server)
    return { ...server, conninfo: `host=127.0.0.1 port=${port} user=postgres password=${new URL(pg.url).password}` }
  }

  // A folder may only be copied while nobody writes to it.
  const origin = await startPostgres({ dataDir: `${folder}primary`, settings })
  await migrate({ address: addressOf(origin.url), folder: `${ROOT}drizzle`, api: role, MIGRATE_WAIT_MS: 0 })
  await origin.stop()
  const owner = statSync(`${folder}primary`)
  for (const name of names) {
    const copy = folder + name
    cpSync(`${folder}primary`, copy, { recursive: true, preserveTimestamps: true })
    writeFileSync(join(copy, 'standby.signal'), '')
    if (process.getuid?.() === 0) spawnSync('chown', ['-R', `${owner.uid}:${owner.gid}`, copy])
    spawnSync('chmod', ['700', copy])
  }
  const primary = await serve('primary')
  const follow = (name: string) => serve(name, { primary_conninfo: primary.conninfo })
  const [name, ...others] = names
  const replica = await follow(name)
  return {
    primary,
    replica,
    others: await Promise.all(others.map(follow)),
    /** Lets a replica show what was committed so much later, in ms. */
    async lag(ms: number, { admin }: Server = replica) {
      await admin.unsafe(`alter system set recovery_min_apply_delay = ${ms}`)
      await admin`select pg_reload_conf()`
      await expect
        .poll(() => admin`select setting::int as ms from pg_settings where name = 'recovery_min_apply_delay'`)
        .toEqual([{ ms }])
    },
    async stop() {
      for (const server of servers.toReversed()) await server.stop()
    },
  }
}
