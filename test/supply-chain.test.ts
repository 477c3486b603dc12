/** What is taken from others is named by what it contains, and runs nothing that was not asked for. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import packageJson from '../package.json' with { type: 'json' }
import { projectFiles } from './files.ts'
import { ROOT } from './process.ts'

type Locked = { integrity?: string; resolved?: string; hasInstallScript?: boolean; link?: boolean }

/** Renovate pins them by its first proposal: we know no digest of theirs that others vouch for. */
const WITHOUT_DIGEST = ['ghcr.io/cloudnative-pg/postgresql', 'gcr.io/cloud-sql-connectors/cloud-sql-proxy']
const OURS = /(^|\/)users-api$/

const read = (path: string) => readFileSync(ROOT + path, 'utf8')
const lockFiles = projectFiles().filter((file) => file.endsWith('package-lock.json'))

/** The packages of a lock file, without the project itself. */
const locked = (file: string) => Object.entries<Locked>(JSON.parse(read(file)).packages).filter(([path]) => path !== '')

test.each(lockFiles)('every package of %s is from the registry, with its hash', (file) => {
  const packages = locked(file)
  expect(packages.length).toBeGreaterThan(0)
  const strange = packages.filter(([, { integrity, resolved = 'https:' }]) => {
    return !integrity?.startsWith('sha512-') || !resolved.startsWith('https:')
  })
  expect(strange).toEqual([])
})

test('whatever builds, tests or checks installs what a lock file says, and nothing else', () => {
  const scripts = projectFiles().filter((file) => /^(Dockerfile|\.ci\/|\.github\/(workflows|tools|kind)\/)/.test(file))
  const installs = scripts.flatMap((file) =>
    [
      ...read(file).matchAll(
        /\b(?:npm (?:ci|i|install|add|exec|x)|npx|pip3? install|go (?:install|run)|curl|wget)\b.*/g,
      ),
    ]
      // Go's checksum database pins a version, go.sum a tool; pip asks for hashes.
      .filter(([command]) => !/^npm ci\b|^go install (tool|\S+@v[\d.]+)|--require-hashes/.test(command))
      .map(([command]) => `${file}: ${command}`),
  )
  expect(scripts).toEqual(expect.arrayContaining(['Dockerfile', '.ci/run', '.github/tools/install']))
  expect(installs).toEqual([])
})

test('package.json says of every package with an install script whether it may run', () => {
  const packages = locked('package-lock.json').filter(([, { hasInstallScript }]) => hasInstallScript)
  const names = packages.map(([path]) => path.replace(/^.*node_modules\//, ''))
  expect(names).toContain('esbuild')
  expect(names.filter((name) => !Object.hasOwn(packageJson.allowScripts, name))).toEqual([])
  // npm 11.16 and newer refuse to install what is not named.
  expect(read('.npmrc')).toContain('strict-allow-scripts=true')
})

test('every image of others is named by its digest', () => {
  const files = projectFiles().filter((file) => /(^|\/)Dockerfile$|\.yaml$/.test(file))
  const images = files.flatMap((file) =>
    [
      ...read(file).matchAll(
        /^(?:FROM (?:--platform=\S+ )?|[\s-]*image(?:Name)?: )["']?([^\s"'@:]+(?::[^\s"'@]+)?)(\S*)/gm,
      ),
    ]
      .map(([, tagged = '', digest]) => ({ file, image: tagged.replace(/:[^:/]+$/, ''), digest }))
      .filter(({ image }) => !OURS.test(image) && image !== 'scratch'),
  )
  expect(images.map(({ image }) => image)).toContain('gcr.io/distroless/nodejs24-debian13')
  const named = images.filter(({ digest }) => !/^@sha256:[0-9a-f]{64}\b/.test(digest ?? ''))
  expect(named.filter(({ image }) => !WITHOUT_DIGEST.includes(image))).toEqual([])
})
