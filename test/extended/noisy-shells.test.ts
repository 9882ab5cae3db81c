import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeOnHosts } from '../kit/describe-on-hosts.ts'
import { type ReplctlResult, TestCluster, TestHosts } from '../kit/index.ts'
import { openToControlHost, WriterWatch, writersNow } from '../kit/observe.ts'

/** What a start-up file of bash should not hold, and many do. */
const noise = `
echo "welcome to $(hostname), \${USER}: 3 updates @@home"
stty erase ^H
echo "warning: last login failed" >&2
export PGDATA=/nonexistent PGPORT=9999 PGHOST=192.0.2.1 PGHOSTADDR=192.0.2.1 PGUSER=nobody PGDATABASE=nowhere PGOPTIONS="-c foo=bar"
export PGSERVICE=none PGPASSFILE=/nonexistent PGSSLMODE=verify-full LC_ALL=de_DE.UTF-8 LANGUAGE=de TZ=Asia/Tokyo
export TMOUT=1 POSIXLY_CORRECT=1 IFS=: CDPATH=/tmp ENV=/nonexistent BASH_ENV=/nonexistent GREP_OPTIONS=--color=always
alias rm='rm -i' cat='echo cat'
cd /tmp
`

const tell = ({ exitCode, json }: ReplctlResult) => ({
  exit: exitCode,
  found: json?.problems.map((one: { node: string; code: string }) => `${one.node} ${one.code}`),
})
/** As `expect`, with replctl's own words where it fails. */
const told = (result: ReplctlResult) =>
  expect(tell(result), `${JSON.stringify(result.json?.problems)}\n${result.stderr}`)

describeOnHosts('P-48: shells that talk and set what they please', () => {
  let hosts: TestHosts
  let cluster: TestCluster

  beforeAll(async () => {
    hosts = await TestHosts.create({
      hosts: [
        { name: 'pg1', sshdConfig: 'Banner /etc/banner\nPermitUserEnvironment yes\n' },
        { name: 'pg2', login: 'admin' },
        { name: 'pg3', login: 'root' },
      ],
    })
    await hosts.writeFile('pg1', '/etc/banner', 'Authorized use only!\n{"ok":true}\n')
    for (const host of hosts.names) {
      await hosts.exec(
        host,
        'mkdir -p /var/lib/postgresql/.config/fish /home/admin/.config/fish /root/.config/fish',
      )
      for (const [user, home] of [
        ['postgres', '/var/lib/postgresql'],
        ['admin', '/home/admin'],
        ['root', '/root'],
      ] as const) {
        for (const file of ['.bashrc', '.bash_profile', '.profile', '.zshenv']) {
          await hosts.writeFile(host, `${home}/${file}`, noise, { owner: user })
        }
        await hosts.writeFile(
          host,
          `${home}/.cshrc`,
          'echo hello from csh; setenv PGPORT 9999; set noclobber\n',
          { owner: user },
        )
        await hosts.writeFile(
          host,
          `${home}/.config/fish/config.fish`,
          'echo hello from fish; set -gx PGPORT 9999\n',
          {
            owner: user,
          },
        )
        await hosts.writeFile(host, `${home}/.psqlrc`, '\\echo noise\n\\x on\n\\pset format html\n', {
          owner: user,
        })
      }
      await hosts.exec(host, 'chown -R postgres: ~postgres/.config; chown -R admin: /home/admin/.config')
    }
    // Where bash is /bin/sh, as on Red Hat, TMOUT would end its "read".
    await hosts.exec('pg1', 'ln -sf bash /bin/sh')
    await hosts.writeFile(
      'pg1',
      '/var/lib/postgresql/.ssh/environment',
      'TMOUT=1\nPGPORT=9999\nLC_ALL=tr_TR.UTF-8\n',
      {
        owner: 'postgres',
      },
    )
  })
  afterAll(() => hosts?.destroy())

  const shells = [
    ['bash', undefined, undefined],
    ['fish and csh', '/usr/bin/fish', '/bin/csh'],
    ['zsh and sh', '/usr/bin/zsh', '/bin/sh'],
  ] as const

  it.for(shells)('%s: a whole life is as quiet as elsewhere', async ([, ofAdmin, ofRoot], { skip }) => {
    const has = async (shell: string | undefined) =>
      shell === undefined || (await hosts.exec('pg2', ['test', '-x', shell], { check: false })).exitCode === 0
    if (!(await has(ofAdmin)) || !(await has(ofRoot))) skip(`${ofAdmin} or ${ofRoot} is not installed`)
    if (ofAdmin) await hosts.setLoginShell('pg2', 'admin', ofAdmin)
    if (ofRoot) await hosts.setLoginShell('pg3', 'root', ofRoot)
    const { emptyHosts } = await import('../kit/empty-hosts.ts')
    await emptyHosts(hosts)
    cluster = await TestCluster.create(hosts, { inventory: openToControlHost })
    const run = async (...args: string[]) => {
      const result = await cluster.replctl([...args, '--json'])
      expect(result.stdout.trim().split('\n')).toHaveLength(1)
      expect(result.stdout + result.stderr).not.toMatch(
        /welcome to|hello from|Authorized use|stty|last login|noise/,
      )
      return result
    }
    const watch = new WriterWatch(hosts)
    told(await run('init', 'primary')).toMatchObject({ exit: 0, found: [] })
    told(await run('add-standby', 'pg2', 'pg3')).toMatchObject({ exit: 0, found: [] })
    const status = await run('status')
    told(status).toMatchObject({ exit: 0, found: [] })
    const seen = status.json.result.nodes.map((one: Record<string, unknown>) => [
      one.name,
      one.role,
      one.state,
      one.slot,
    ])
    expect(seen).toEqual([
      ['pg1', 'primary', 'running', null],
      ['pg2', 'standby', 'streaming', 'shop_pg2'],
      ['pg3', 'standby', 'streaming', 'shop_pg3'],
    ])
    expect(await cluster.server('pg1').sqlValue("SELECT current_setting('port')::int")).toBe(5432)
    expect(
      await cluster
        .server('pg1')
        .sqlValue("SELECT current_setting('lc_messages') = ANY ('{C,C.UTF-8,en_US.UTF-8}')"),
    ).toBe(true)
    expect(await cluster.server('pg1').sqlValue("SELECT current_setting('TimeZone')")).not.toBe('Asia/Tokyo')
    told(await run('verify')).toMatchObject({ exit: 0, found: [] })
    await cluster.server('pg1').kill9()
    told(await run('promote', 'pg2')).toMatchObject({ exit: 0, found: [] })
    told(await run('verify', 'pg3')).toMatchObject({ exit: 0, found: [] })
    // The former primary, which does not run, still has one for it.
    told(await run('remove-standby', 'pg3', '--purge')).toMatchObject({
      exit: 0,
      found: ['pg1 slot-left-over'],
    })
    expect(await watch.stop()).toEqual([])
    expect(await writersNow(hosts)).toEqual(['pg2'])
  })
})
