import { type ChildProcess, spawn } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'

export const ROOT = fileURLToPath(new URL('..', import.meta.url))

export type Running = {
  process: ChildProcess
  /** What it has printed, both streams. */
  output(): string
  stdout(): string
  stderr(): string
  /** Resolves when it has printed what matches, with the match. */
  printed(pattern: RegExp): Promise<RegExpExecArray>
  /** Its exit code, or the signal that ended it. */
  exited: Promise<number | NodeJS.Signals>
}

/** The environment without settings of ours, and with `env`. */
const environment = (env: Record<string, string>) => {
  const { DATABASE_URL: _, PORT: __, ...rest } = process.env
  return { ...rest, NODE_ENV: 'production', ...env }
}

/** Runs a program in the project's folder; `exited` must be waited for. */
export function run(command: string, args: string[], env: Record<string, string> = {}): Running {
  const child = spawn(command, args, { cwd: ROOT, env: environment(env), stdio: ['ignore', 'pipe', 'pipe'] })
  let [stdout, stderr] = ['', '']
  const waiting = new Set<() => void>()
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
    for (const look of waiting) look()
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
    for (const look of waiting) look()
  })
  const exited = new Promise<number | NodeJS.Signals>((resolve) => {
    child.on('close', (code, signal) => resolve(code ?? signal ?? 1))
  })
  const output = () => stdout + stderr
  return {
    process: child,
    output,
    stdout: () => stdout,
    stderr: () => stderr,
    exited,
    printed(pattern) {
      return new Promise((resolve, reject) => {
        const look = () => {
          const match = pattern.exec(output())
          if (match === null) return
          waiting.delete(look)
          resolve(match)
        }
        waiting.add(look)
        look()
        void exited.then((code) => reject(new Error(`ended with ${code} before it printed ${pattern}: ${output()}`)))
      })
    },
  }
}

/** Runs `node src/main.ts` with these words. */
export const main = (args: string[], env: Record<string, string> = {}) =>
  run(process.execPath, ['src/main.ts', ...args], env)

/** A folder with the project's programs, for tests that change sources or leave data; gone after the test. */
export function copyProject(): string {
  const folder = mkdtempSync(join(tmpdir(), 'users-api-copy-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  for (const name of ['src', 'dev', 'drizzle', 'drizzle.config.ts', 'package.json']) {
    cpSync(ROOT + name, join(folder, name), { recursive: true })
  }
  symlinkSync(`${ROOT}node_modules`, join(folder, 'node_modules'))
  return folder
}
