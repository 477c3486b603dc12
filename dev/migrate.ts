// `npm run db:migrate`: brings the database that `npm run dev` uses to the sources' migrations, whether it runs or not.
import { dataFolder, runningUrl } from './data.ts'
import { readEnvironment } from './environment.ts'
import { exitCode, say } from './messages.ts'
import { startPostgres } from './postgres.ts'
import { applyMigrations } from './service.ts'

/** @returns the exit code */
export const main = () =>
  exitCode(async () => {
    const { env, database } = readEnvironment()
    if (database !== undefined) {
      say(`Database    the one of ${database}`)
      return await applyMigrations(env, false)
    }
    const dataDir = dataFolder()
    say(`Database    that of \`npm run dev\`, in ${dataDir}`)
    const url = runningUrl(dataDir)
    if (url !== undefined) return await applyMigrations({ ...env, DATABASE_URL: url }, true)
    const postgres = await startPostgres({ dataDir, say })
    try {
      await applyMigrations({ ...env, DATABASE_URL: postgres.url }, true)
    } finally {
      await postgres.stop()
    }
  })
