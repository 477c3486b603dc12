import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { createApp, fromDatabase } from './app.ts'
import { ConfigError, parseConfig, settings } from './config.ts'
import { createDatabase } from './db/replica.ts'
import { startAudit } from './http/audit.ts'
import { createLog, describeError, openOutput } from './http/log.ts'
import { startServer } from './server.ts'

const NAME_WIDTH = Math.max(...settings.map(({ name }) => name.length)) + 2

const USAGE = `Usage: node main.js [serve | migrate | ensure-secret]

  serve          serve the API (the default)
  migrate        bring the database to this release, and create the API's role if DB_API_USER is set
  ensure-secret  in Kubernetes: create the database's Secret if there is none

Settings are environment variables:

${settings.map(({ name, meaning, fallback }) => `  ${name.padEnd(NAME_WIDTH)}${meaning}${fallback && ` (${fallback})`}`).join('\n')}
`

/** Beside `src` in the sources, and beside `dist` in a build. */
const MIGRATIONS = fileURLToPath(new URL('../drizzle', import.meta.url))

/** Replaces how SIGTERM and SIGINT end the process; process 1 of a container would otherwise ignore them. */
const onStopSignal = (listener: NodeJS.SignalsListener) => process.on('SIGTERM', listener).on('SIGINT', listener)

/** Serves until the first stop signal; the second ends the process at once. */
async function serve() {
  const config = parseConfig(process.env)
  const controller = new AbortController()
  const stopping = controller.signal
  const stopAsked = once(stopping, 'abort')
  const output = openOutput()
  const log = createLog(config, output)
  const database = createDatabase({
    ...config,
    applicationName: 'users-api',
    onChange(of, failure) {
      if (failure) log.warn(describeError(failure), `${of} unavailable`)
      else log.info(`${of} available`)
    },
  })
  /** Ends the process at once: changes that wait for an answer fail, and the log has their outcome as unknown. */
  async function leave() {
    await database.close(0).catch(() => {})
    await output.end()
    process.exit(1)
  }
  onStopSignal((name) => (stopping.aborted ? leave() : controller.abort(name)))
  process.on('uncaughtException', (error) => {
    log.fatal(describeError(error), 'crashed')
    void leave()
  })
  // What is not asked for is not loaded: a start does not pay for it.
  const onLost = () => log.warn('spans were lost')
  const tracing = config.tracing && (await import('./telemetry/tracing.ts')).startTracing(config.tracing, onLost)
  const isAudited = config.AUDIT_LOG === 'on'
  if (isAudited) startAudit(config, output)
  if (!config.auth) log.warn('authentication is off: everyone who reaches this may read and change everything')
  const app = await createApp({ ...config, log, trace: tracing?.middleware, stopping, ...fromDatabase(database, log) })
  // Hono puts its routes together at the first look for one: now, while the database connects.
  app.router.match('GET', '/')
  await Promise.race([database.opened, sleep(config.STARTUP_WAIT_MS), stopAsked])
  const serveMetrics = async (PORT: number) => {
    const { createMetrics } = await import('./telemetry/metrics.ts')
    return startServer({ ...config, PORT, fetch: createMetrics(database).fetch, stopping })
  }
  const metricsPort = stopping.aborted ? undefined : config.METRICS_PORT
  const metrics = metricsPort === undefined ? undefined : await serveMetrics(metricsPort)
  const server = stopping.aborted ? undefined : await startServer({ ...config, fetch: app.fetch, stopping })
  if (server) log.info({ metricsPort: metrics?.port, port: server.port }, 'listening')
  await stopAsked
  log.info({ signal: stopping.reason }, 'stopping')
  const until = performance.now() + config.SHUTDOWN_TIMEOUT_MS
  await Promise.all([server?.stop(), metrics?.stop()])
  await database.close(Math.max(0, until - performance.now()))
  await tracing?.stop(Math.max(0, until - performance.now()))
  log.info('stopped')
  const isWritten = await output.end(isAudited ? until - performance.now() : 0)
  // Not a word on standard error: it may be the same pipe, which nobody reads.
  if (isAudited && !isWritten) process.exit(1)
}

async function migrate() {
  onStopSignal(() => process.exit(1))
  const { migrate: run } = await import('./db/migrate.ts')
  process.stdout.write(`${await run({ ...parseConfig(process.env), folder: MIGRATIONS })}\n`)
}

async function ensureSecret() {
  onStopSignal(() => process.exit(1))
  const { ensureSecret: run, inClusterOptions } = await import('./kubernetes/ensure-secret.ts')
  const options = inClusterOptions(process.env)
  process.stdout.write(`Secret ${options.namespace}/${options.name}: ${await run(options)}.\n`)
}

const help = () => process.stdout.write(USAGE)
const COMMANDS = new Map(Object.entries({ serve, migrate, 'ensure-secret': ensureSecret, '--help': help, '-h': help }))

try {
  const command = process.argv.slice(2).join(' ') || 'serve'
  const run = COMMANDS.get(command)
  if (!run) throw new ConfigError(`"${command}" is not a command: see --help.`)
  await run()
  process.exit(0)
} catch (error) {
  // One sentence for a person. Status 2 is for a wrong command or setting, 1 for what could not be done.
  process.stderr.write(`users-api: ${error instanceof Error ? error.message : error}\n`)
  process.exit(error instanceof ConfigError ? 2 : 1)
}
