// `npm run dev`: PostgreSQL, its migrations, and the API that starts again when a source changes.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { watch } from 'node:fs'
import { createServer } from 'node:net'
import { fileURLToPath } from 'node:url'
import { DevError, startPostgres } from './postgres.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const RELOAD_DELAY_MS = 100

const say = (text: string) => process.stdout.write(`${text}\n`)

/** One signal ends everything; it must not reach the children by way of the terminal, so they have groups of their own. */
const stopping = new AbortController()
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => stopping.abort())

async function assertFree(port: number) {
  const probe = createServer().listen(port)
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

async function end(child: ChildProcess | undefined) {
  if (!child || child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGTERM')
  await exited
}

/** Serves until `stopping`; a source that changed, or was mended, starts the API again. */
async function serve(env: NodeJS.ProcessEnv) {
  let api = start(['src/main.ts'], env)
  let reload = Promise.resolve()
  let timer: NodeJS.Timeout | undefined
  const watcher = watch(`${ROOT}/src`, { recursive: true }, () => {
    clearTimeout(timer)
    timer = setTimeout(() => {
      reload = reload.then(async () => {
        if (stopping.signal.aborted) return
        say('A source changed: starting again.')
        await end(api)
        api = start(['src/main.ts'], env)
      })
    }, RELOAD_DELAY_MS)
  })
  if (!stopping.signal.aborted) await once(stopping.signal, 'abort')
  clearTimeout(timer)
  watcher.close()
  await reload
  await end(api)
}

async function dev() {
  const port = Number(process.env.PORT || 3000)
  await assertFree(port)
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
    process.stderr.write(`${error instanceof DevError ? error.message : error?.stack}\n`)
    process.exit(1)
  },
)
