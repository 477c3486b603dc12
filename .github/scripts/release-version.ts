/**
 * Makes a version of a commit whose image main has released: what was tested is what is published, so nothing is built.
 *
 *   node .github/scripts/release-version.ts v1.2.3
 *
 * Waits for main's release of the commit, checks that it signed the image, gives the image the version's tags, and makes
 * the release on GitHub with generated notes, the bill of materials and the build record. A version that is released stays as it is.
 *
 * Needs `gh`, `cosign` and `docker` (logged in to the registry), and GITHUB_REPOSITORY as owner/name.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fail, run, start } from './run.ts'

const VERSION_TAG = /^v(\d+\.\d+)\.\d+(-[\w.-]+)?$/

/** What a commit that only names an image changes. It has no release of its own: paths-ignore in release.yml is the same. */
export const DEPLOYED = 'kustomize/overlays/gke*/kustomization.yaml'

const SIGNER = '.github/workflows/release.yml'

/** The files of a release: which statement about the image, and what of it. Scorecard knows a build record by its name. */
const ATTESTED = [
  { file: 'sbom.cdx.json', type: 'https://cyclonedx.org/bom', part: '.[0].verificationResult.statement.predicate' },
  { file: 'provenance.intoto.jsonl', type: 'https://slsa.dev/provenance/v1', part: '.[].attestation.bundle' },
]

function main([tag = '']: string[]) {
  const [, minor, suffix] = VERSION_TAG.exec(tag) ?? fail(`"${tag}" is not a version like v1.2.3 or v1.2.3-rc.1`)
  if (isReleased(tag)) return console.log(`GitHub has a release ${tag} already: nothing to do`)
  const version = tag.slice(1)
  checkTag(tag, version)
  const commit = releasedCommit(tag)
  waitForRelease(commit)

  const name = run(process.execPath, join(import.meta.dirname, 'set-image.ts'), '--name')
  const image = `${name}@${digestOf(`${name}:sha-${commit}`)}`
  verify(image, commit)
  const files = writeAttested(image, commit)

  // A pre-release takes no other tag, and an older version takes none from a newer one.
  const isNewest = (prefix: string) => !suffix && newestVersion(prefix) === tag
  const isLatest = isNewest('v')
  const tags = [version, ...(isNewest(`v${minor}.`) ? [minor] : []), ...(isLatest ? ['latest'] : [])]
  run('docker', 'buildx', 'imagetools', 'create', ...tags.flatMap((it) => ['--tag', `${name}:${it}`]), image)
  console.log(`${image} is ${tags.join(', ')}`)

  const kind = suffix ? '--prerelease' : `--latest=${isLatest}`
  const notes = ['--generate-notes', '--notes', `Image: \`${name}:${version}@${image.split('@')[1]}\``]
  run('gh', 'release', 'create', tag, ...files, '--verify-tag', '--title', tag, kind, ...notes)
}

/** The tag must be on main, and the version that package.json has there. */
function checkTag(tag: string, version: string) {
  const inPackage: unknown = JSON.parse(run('git', 'show', `${tag}:package.json`)).version
  if (inPackage !== version) fail(`${tag} is not the version in package.json, which is ${inPackage}`)
  if (run('git', 'rev-list', '--max-count=1', tag, '^origin/main')) fail(`${tag} is not on main`)
}

/** The last commit up to the tag that changed more than which image is deployed. A merged pull request is one commit. */
function releasedCommit(tag: string) {
  const paths = [':(top)', `:(top,exclude,glob)${DEPLOYED}`]
  return run('git', 'log', '--max-count=1', '--first-parent', '--format=%H', tag, '--', ...paths)
}

function waitForRelease(commit: string) {
  const query = `run list --workflow release.yml --branch main --commit ${commit} --limit 1 --json databaseId --jq .[].databaseId`
  const id = run('gh', ...query.split(' ')) || fail(`main has no release of ${commit}: tag the last commit of a push`)
  execFileSync('gh', ['run', 'watch', id, '--exit-status', '--compact', '--interval', '60'], { stdio: 'inherit' })
}

const digestOf = (image: string) =>
  run('docker', 'buildx', 'imagetools', 'inspect', image, '--format', '{{.Manifest.Digest}}')

/** Throws unless main's release workflow signed the image, at this commit. */
function verify(image: string, commit: string) {
  const workflow = `https://github.com/${process.env.GITHUB_REPOSITORY}/${SIGNER}@refs/heads/main`
  const issuer = 'https://token.actions.githubusercontent.com'
  const signer = ['--certificate-oidc-issuer', issuer, '--certificate-identity', workflow]
  run('cosign', 'verify', ...signer, '--certificate-github-workflow-sha', commit, image)
}

/** Writes what main's release attested of the image at this commit, and gives the files' paths. Throws if it did not. */
function writeAttested(image: string, commit: string) {
  const folder = mkdtempSync(join(tmpdir(), 'release-'))
  const repository = process.env.GITHUB_REPOSITORY ?? ''
  const source = ['--source-ref', 'refs/heads/main', '--source-digest', commit]
  const signer = ['--repo', repository, '--signer-workflow', `${repository}/${SIGNER}`, ...source]
  return ATTESTED.map(({ file, type, part }) => {
    const path = join(folder, file)
    const wanted = ['--predicate-type', type, '--format', 'json', '--jq', part]
    writeFileSync(path, run('gh', 'attestation', 'verify', `oci://${image}`, ...signer, ...wanted))
    return path
  })
}

/** The newest version whose tag begins so, pre-releases left out. */
const newestVersion = (prefix: string) =>
  run('git', 'tag', '--list', `${prefix}*`, '--sort=-version:refname')
    .split('\n')
    .find((it) => /^v[\d.]+$/.test(it))

function isReleased(tag: string) {
  try {
    run('gh', 'release', 'view', tag)
    return true
  } catch {
    return false
  }
}

if (import.meta.main) start('release-version', main)
