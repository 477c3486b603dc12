// `npm run dev`: PostgreSQL, its migrations, and the API that starts again when a source changes.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { createServer } from 'node:net'
import { fileURLToPath } from 'node:url'
import { ConfigError, parseConfig } from '../src/config.ts'
import { DevError, freePort, startPostgres } from './postgres.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const PARENT_INTERVAL_MS = 500

const say = (text: string) => process.stdout.write(`${text}\n`)

/** One signal ends everything; it must not reach the children by way of the terminal, so they have groups of their own. */
const stopping = new AbortController()
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => stopping.abort())
// npm hands a SIGTERM to its shell, which ends and tells nobody: that it has gone is all that can be seen of it.
const parent = process.ppid
if (process.env.npm_lifecycle_event) {
  setInterval(() => process.ppid !== parent && stopping.abort(), PARENT_INTERVAL_MS).unref()
}

async function assertFree(port: number, host: string | undefined) {
  const probe = createServer().listen(port, host)
  try {
    await once(probe, 'listening')
  } catch {
    throw new DevError(`Port ${port} is taken: stop what uses it, or choose another: PORT=3001 npm run dev`)
  }
  probe.close()
  await once(probe, 'close')
}

const start = (args: string[], env: NodeJS.ProcessEnv) =>
  spawn(process.execPath, args, { cwd: ROOT, env, stdio: 'inherit', detached: true })

async function end(child: ChildProcess) {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGTERM')
  await exited
}

/** Serves until `stopping`; Node starts the API again when a source that it has loaded changes, or is mended. */
async function serve(env: NodeJS.ProcessEnv) {
  const api = start(['--watch', '--watch-preserve-output', 'src/main.ts'], env)
  if (!stopping.signal.aborted) await once(stopping.signal, 'abort')
  await end(api)
}

async function dev() {
  if (existsSync('.env')) process.loadEnvFile()
  const { PORT, HOST } = parseConfig(process.env)
  const port = PORT || (await freePort())
  await assertFree(port, HOST)
  const own = process.env.DATABASE_URL ? undefined : await startPostgres({ dataDir: `${ROOT}.data/postgres` })
  try {
    const env = {
      ...process.env,
      DATABASE_URL: process.env.DATABASE_URL || own?.url,
      PORT: String(port),
      DRAIN_DELAY_MS: process.env.DRAIN_DELAY_MS || '0',
    }
    const migrating = start(['src/main.ts', 'migrate'], env)
    stopping.signal.addEventListener('abort', () => migrating.kill('SIGTERM'))
    const [code] = await once(migrating, 'exit')
    if (stopping.signal.aborted) return
    if (code !== 0) throw new DevError('The migrations could not be applied.')
    say(`
  Users API   http://localhost:${port}/users
  OpenAPI     http://localhost:${port}/openapi.json
  Database    ${env.DATABASE_URL}${own ? `\n  Data        ${own.dataDir}` : ''}

  Try it:     curl -X POST http://localhost:${port}/users -H "Content-Type: application/json" -d '{"username": "Alice", "email": "alice@example.com"}'
              curl http://localhost:${port}/users

  Sources are watched. Ctrl-C stops everything.
`)
    own?.process.once('exit', () => stopping.abort())
    await serve(env)
  } finally {
    await own?.stop()
  }
}

await dev().then(
  () => process.exit(0),
  (error) => {
    const expected = error instanceof DevError || error instanceof ConfigError
    process.stderr.write(`${expected ? error.message : error?.stack}\n`)
    process.exit(error instanceof ConfigError ? 2 : 1)
  },
)
