using DiskImage.Tests.Support;

namespace DiskImage.Tests.CommandLine;

/// <summary>The same arguments to qemu-img and to our program: the same output, status and images.</summary>
public sealed class QemuImgTests
{
    public static TheoryData<string, string> Scripts => new()
    {
        { "create", """
            $ qemu-img create -f qcow2 a.qcow2 10M
            $ qemu-img create -f raw a.raw 1000
            $ qemu-img create a2.raw 1.5k
            $ qemu-img create -f raw -o preallocation=falloc p.raw 64k
            $ qemu-img create -q -f vpc a.vpc 10M
            $ qemu-img create -f vdi a.vdi 10M
            $ qemu-img create -f vhdx a.vhdx 10M
            $ qemu-img create -f vmdk a.vmdk 10M
            $ qemu-img create -f qed a.qed 10M
            $ qemu-img create -f parallels a.parallels 10M
            = a.qcow2 qcow2
            = a.raw raw
            = a.vpc vpc
            = a.vdi vdi
            = a.vhdx vhdx
            = a.vmdk vmdk
            = a.qed qed
            = a.parallels parallels
            """ },
        { "create with options", """
            ~ disk-size
            $ qemu-img create -f qcow2 -o cluster_size=4k,lazy_refcounts=on,compat=1.1 -o refcount_bits=8 a.qcow2 10M
            $ qemu-img create -f qcow2 -ocompat=0.10 v2.qcow2 1G
            $ qemu-img create -f qcow2 -o data_file=d.raw,data_file_raw=on d.qcow2 1M
            $ qemu-img create -f qcow2 -o preallocation=metadata,extended_l2=on,compression_type=zstd e.qcow2 1M
            $ qemu-img create -f vpc -o subformat=fixed,force_size=on f.vpc 1M
            $ qemu-img create -f vmdk -o subformat=monolithicFlat,adapter_type=lsilogic,hwversion=4 f.vmdk 1M
            $ qemu-img create -f vdi -o static=on f.vdi 2M
            $ qemu-img create -f vhdx -o subformat=fixed,block_size=1M f.vhdx 4M
            $ qemu-img create -f qed -o cluster_size=4k,table_size=2 f.qed 1M
            = a.qcow2 qcow2
            = v2.qcow2 qcow2
            = e.qcow2 qcow2
            = f.vpc vpc
            = f.vmdk vmdk
            $ qemu-img info a.qcow2
            $ qemu-img info --output=json v2.qcow2
            """ },
        { "create over a backing image", """
            ~ disk-size
            ! qemu-img create -q -f qcow2 base.qcow2 3M
            $ qemu-img create -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
            $ qemu-img create -f qcow2 -F qcow2 -o backing_file=base.qcow2 top2.qcow2 5M
            $ qemu-img create -u -f qcow2 -b nowhere -F raw top3.qcow2 5M
            $ qemu-img create -f qcow2 -b base.qcow2 top4.qcow2
            $ qemu-img create -f qcow2 -b nowhere -F raw top5.qcow2
            $ qemu-img create -f raw -b base.qcow2 -F qcow2 top6.raw 1M
            $ qemu-img info top.qcow2
            $ qemu-img info --backing-chain --output json top.qcow2
            $ qemu-img info --backing-chain top2.qcow2
            = top.qcow2 qcow2
            """ },
        { "wrong arguments", """
            $ qemu-img
            $ qemu-img nothing
            $ qemu-img create
            $ qemu-img create -f
            $ qemu-img create -f qcow2 x
            $ qemu-img create -f nope x 1M
            $ qemu-img create -Z x 1M
            $ qemu-img create -f qcow2 x 1M y
            $ qemu-img create -f raw x 10x
            $ qemu-img create -f raw x -- -5
            $ qemu-img create -f qcow2 -o nothing=1 x 1M
            $ qemu-img info
            $ qemu-img info nowhere
            $ qemu-img info --nothing x
            $ qemu-img info a b
            $ qemu-img map
            $ qemu-img check nowhere
            $ qemu-img compare a
            $ qemu-img compare a b
            $ qemu-img convert a
            $ qemu-img convert -O qcow2 nowhere b
            $ qemu-img convert -S 4 a b
            $ qemu-img convert -m 17 a b
            $ qemu-img convert --target-is-zero a b
            $ qemu-img convert --skip-broken-bitmaps a b
            $ qemu-img snapshot -l nowhere
            $ qemu-img snapshot -c a -d b x
            $ qemu-img resize
            $ qemu-img resize a
            $ qemu-img resize a abc
            $ qemu-img measure
            $ qemu-img measure --size 1M a
            $ qemu-img bitmap a
            $ qemu-img bitmap --add a
            $ qemu-img dd
            $ qemu-img dd foo=1
            $ qemu-img dd if=a
            $ qemu-img bench
            $ qemu-img commit
            $ qemu-img rebase
            $ qemu-img amend a
            """ },
        { "getopt", """
            ! qemu-img create -q -f qcow2 a.qcow2 1M
            $ qemu-img info --out json a.qcow2
            $ qemu-img info a.qcow2 --output=json
            $ qemu-img info -fqcow2 -- a.qcow2
            $ qemu-img convert -qcf qcow2 -Oqcow2 a.qcow2 b.qcow2
            $ qemu-img compare --image-opts driver=qcow2,file.driver=file,file.filename=a.qcow2 file.filename=b.qcow2
            $ qemu-img info 'json:{"driver":"qcow2","file":{"driver":"file","filename":"nowhere"}}'
            = b.qcow2 qcow2
            """ },
        { "info of formats", """
            ~ identifiers
            ! qemu-img create -q -f raw a.raw 10M
            ! qemu-img create -q -f vmdk a.vmdk 10M
            ! qemu-img create -q -f vmdk -o subformat=monolithicFlat b.vmdk 1M
            ! qemu-img create -q -f vdi a.vdi 10M
            ! qemu-img create -q -f vpc a.vpc 10M
            ! qemu-img create -q -f vhdx a.vhdx 10M
            ! qemu-img create -q -f qed a.qed 10M
            ! qemu-img create -q -f qcow2 -o data_file=d.raw,data_file_raw=on d.qcow2 1M
            $ qemu-img info a.raw
            $ qemu-img info --output json a.raw
            $ qemu-img info a.vmdk
            $ qemu-img info --output json a.vmdk
            $ qemu-img info b.vmdk
            $ qemu-img info a.vdi
            $ qemu-img info a.vpc
            $ qemu-img info a.vhdx
            $ qemu-img info --output json a.vhdx
            $ qemu-img info a.qed
            $ qemu-img info d.qcow2
            $ qemu-img info --output json d.qcow2
            $ qemu-img info -f qcow2 a.raw
            """ },
        { "map", """
            ! qemu-img create -q -f qcow2 base.qcow2 8M
            ! qemu-io -c 'write -P 1 1M 2M' base.qcow2
            ! qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
            ! qemu-io -c 'write -P 2 0 64k' -c 'write -z 2M 64k' -c 'write -P 3 4M 128k' top.qcow2
            ! qemu-img create -q -f raw a.raw 4M
            ! qemu-io -f raw -c 'write 1M 64k' a.raw
            $ qemu-img map top.qcow2
            $ qemu-img map --output json top.qcow2
            $ qemu-img map --output json -s 1M -l 2M top.qcow2
            $ qemu-img map --output json a.raw
            $ qemu-img map -f raw a.raw
            """ },
        { "measure", """
            ! qemu-img create -q -f qcow2 a.qcow2 8M
            ! qemu-io -c 'write -P 1 1M 2M' a.qcow2
            $ qemu-img measure --size 1G
            $ qemu-img measure --size 1G -O qcow2
            $ qemu-img measure -O qcow2 -o cluster_size=4k,refcount_bits=64 --size 100G
            $ qemu-img measure -O qcow2 a.qcow2
            $ qemu-img measure -O raw a.qcow2
            $ qemu-img measure --output json -O qcow2 a.qcow2
            """ },
        { "check", """
            ! qemu-img create -q -f qcow2 a.qcow2 1M
            ! qemu-io -c 'write 0 256k' a.qcow2
            ! qemu-img create -q -f raw a.raw 1M
            ! qemu-img create -q -f vdi a.vdi 1M
            $ qemu-img check a.qcow2
            $ qemu-img check --output json a.qcow2
            $ qemu-img check -q a.qcow2
            $ qemu-img check -r leaks a.qcow2
            $ qemu-img check a.raw
            $ qemu-img check a.vdi
            ! qemu-img convert -O vmdk a.qcow2 a.vmdk
            ! qemu-img convert -O vhdx a.qcow2 a.vhdx
            ! qemu-img convert -O parallels a.qcow2 a.parallels
            ! qemu-img convert -O qed a.qcow2 a.qed
            ! qemu-img convert -O vdi a.qcow2 b.vdi
            $ qemu-img check a.vmdk
            $ qemu-img check a.vhdx
            $ qemu-img check a.parallels
            $ qemu-img check a.qed
            $ qemu-img check --output json b.vdi
            """ },
        { "convert", """
            ~ disk-size
            ! qemu-img create -q -f qcow2 a.qcow2 4M
            ! qemu-io -c 'write -P 1 1M 1M' -c 'write -P 0 2M 64k' a.qcow2
            ! qemu-img snapshot -c s1 a.qcow2
            ! qemu-io -c 'write -P 7 1M 64k' a.qcow2
            ! qemu-img create -q -f raw b.raw 1000k
            $ qemu-img convert -O raw a.qcow2 c.raw
            $ qemu-img convert -c -O qcow2 a.qcow2 c.qcow2
            $ qemu-img convert -O vpc a.qcow2 c.vpc
            $ qemu-img convert -O vmdk -o subformat=streamOptimized a.qcow2 c.vmdk
            $ qemu-img convert -O vdi a.qcow2 c.vdi
            $ qemu-img convert -O vhdx a.qcow2 c.vhdx
            $ qemu-img convert -f qcow2 -O qcow2 -o cluster_size=1M,compat=0.10 -m 4 -W -t none -T none a.qcow2 d.qcow2
            $ qemu-img convert -l s1 -O raw a.qcow2 s.raw
            $ qemu-img convert -l snapshot.name=s1 -O raw a.qcow2 s2.raw
            $ qemu-img convert -l nothing -O raw a.qcow2 s3.raw
            $ qemu-img convert -O raw a.qcow2 b.raw joined.raw
            $ qemu-img convert -S 0 -O qcow2 a.qcow2 full.qcow2
            $ qemu-img convert -S 64k -r 100M --salvage -O raw a.qcow2 z.raw
            $ qemu-img convert -n -O raw a.qcow2 c.raw
            $ qemu-img convert -n -O raw a.qcow2 nowhere.raw
            $ qemu-img convert -n -O raw a.qcow2 b.raw
            $ qemu-img convert -O nope a.qcow2 x
            $ qemu-img convert -c -O raw a.qcow2 x.raw
            $ qemu-img convert -n --target-is-zero --target-image-opts a.qcow2 driver=raw,file.filename=c.raw
            = c.raw raw
            = c.qcow2 qcow2
            = c.vpc vpc
            = c.vmdk vmdk
            = c.vdi vdi
            = c.vhdx vhdx
            = d.qcow2 qcow2
            = s.raw raw
            = s2.raw raw
            = joined.raw raw
            = full.qcow2 qcow2
            = z.raw raw
            $ qemu-img info d.qcow2
            $ qemu-img info c.vpc
            """ },
        { "convert over a backing image", """
            ! qemu-img create -q -f qcow2 base.qcow2 2M
            ! qemu-io -c 'write -P 1 0 1M' base.qcow2
            ! qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
            ! qemu-io -c 'write -P 2 512k 64k' top.qcow2
            ! qemu-img bitmap --add top.qcow2 b0
            $ qemu-img convert -O qcow2 -B base.qcow2 -F qcow2 top.qcow2 c.qcow2
            $ qemu-img convert -O qcow2 -B base.qcow2 top.qcow2 d.qcow2
            $ qemu-img convert -O qcow2 --bitmaps top.qcow2 e.qcow2
            $ qemu-img map --output json c.qcow2
            = c.qcow2 qcow2
            = e.qcow2 qcow2
            """ },
        { "progress", """
            ~ progress
            ! qemu-img create -q -f raw a.raw 2M
            $ qemu-img convert -p -f raw -O qcow2 a.raw b.qcow2
            $ qemu-img convert -p -q -f raw -O qcow2 a.raw b.qcow2
            $ qemu-img compare -p -f raw -F qcow2 a.raw b.qcow2
            """ },
        { "compare", """
            ! qemu-img create -q -f qcow2 a.qcow2 2M
            ! qemu-img create -q -f raw b.raw 2M
            ! qemu-img create -q -f raw c.raw 3M
            ! qemu-img create -q -f raw d.raw 2M
            ! qemu-io -f raw -c 'write -P 5 1000k 1k' d.raw
            $ qemu-img compare a.qcow2 b.raw
            $ qemu-img compare a.qcow2 c.raw
            $ qemu-img compare -s a.qcow2 c.raw
            $ qemu-img compare -F raw b.raw d.raw
            $ qemu-img compare -q b.raw d.raw
            $ qemu-img compare -U -T none b.raw b.raw
            $ qemu-img compare b.raw nowhere
            """ },
        { "commit and rebase", """
            ~ disk-size
            ! qemu-img create -q -f qcow2 base.qcow2 2M
            ! qemu-io -c 'write -P 1 0 1M' base.qcow2
            ! qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2
            ! qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2
            ! qemu-io -c 'write -P 2 512k 64k' top.qcow2
            ! qemu-img create -q -f qcow2 other.qcow2 2M
            $ qemu-img commit -d top.qcow2
            $ qemu-img commit top.qcow2
            $ qemu-img commit -b base.qcow2 mid.qcow2
            $ qemu-img commit -b nowhere mid.qcow2
            $ qemu-img commit base.qcow2
            $ qemu-img rebase -b other.qcow2 -F qcow2 top.qcow2
            $ qemu-img rebase -u -b base.qcow2 -F qcow2 mid.qcow2
            $ qemu-img rebase -u -b nowhere -F raw mid.qcow2
            $ qemu-img info mid.qcow2
            $ qemu-img rebase -b other.qcow2 mid.qcow2
            $ qemu-img rebase -u -b '' mid.qcow2
            $ qemu-img rebase -b '' top.qcow2
            $ qemu-img info top.qcow2
            = top.qcow2 qcow2
            = base.qcow2 qcow2
            = mid.qcow2 qcow2
            """ },
        { "resize", """
            ! qemu-img create -q -f qcow2 a.qcow2 2M
            ! qemu-img create -q -f raw a.raw 2M
            $ qemu-img resize a.qcow2 3M
            $ qemu-img resize a.qcow2 +1M
            $ qemu-img resize a.qcow2 -1M
            $ qemu-img resize --shrink a.qcow2 -1M
            $ qemu-img resize -q --shrink a.qcow2 1M
            $ qemu-img resize --preallocation=metadata a.qcow2 4M
            $ qemu-img resize -f raw a.raw 4M
            $ qemu-img resize -f raw --image-opts driver=raw,file.filename=a.raw 4M
            = a.qcow2 qcow2
            = a.raw raw
            """ },
        { "snapshots", """
            ~ dates disk-size
            ! qemu-img create -q -f qcow2 a.qcow2 2M
            ! qemu-img create -q -f raw a.raw 2M
            $ qemu-img snapshot -l a.qcow2
            $ qemu-img snapshot -c first a.qcow2
            $ qemu-img snapshot -c a-very-long-name-of-a-snapshot a.qcow2
            $ qemu-img snapshot -l a.qcow2
            $ qemu-img snapshot a.qcow2
            $ qemu-img info a.qcow2
            $ qemu-img info --output json a.qcow2
            $ qemu-img snapshot -a first a.qcow2
            $ qemu-img snapshot -a nothing a.qcow2
            $ qemu-img snapshot -d first a.qcow2
            $ qemu-img snapshot -d nothing a.qcow2
            $ qemu-img snapshot -c x a.raw
            = a.qcow2 qcow2
            """ },
        { "bitmaps", """
            ~ disk-size
            ! qemu-img create -q -f qcow2 a.qcow2 2M
            ! qemu-img create -q -f qcow2 b.qcow2 2M
            $ qemu-img bitmap --add a.qcow2 b0
            $ qemu-img bitmap --add -g 16k --disable a.qcow2 b1
            $ qemu-img bitmap --add -g 3 a.qcow2 b2
            $ qemu-img info a.qcow2
            $ qemu-img info --output json a.qcow2
            $ qemu-img bitmap --merge b0 a.qcow2 b1
            $ qemu-img bitmap --add --merge b0 -b a.qcow2 -F qcow2 b.qcow2 c0
            $ qemu-img bitmap --enable a.qcow2 b1
            $ qemu-img bitmap --clear a.qcow2 b0
            $ qemu-img bitmap --remove a.qcow2 b0
            $ qemu-img bitmap --remove a.qcow2 nothing
            $ qemu-img info a.qcow2
            $ qemu-img info b.qcow2
            = a.qcow2 qcow2
            """ },
        { "amend", """
            ~ disk-size
            ! qemu-img create -q -f qcow2 a.qcow2 2M
            $ qemu-img amend -f qcow2 -o compat=0.10 a.qcow2
            $ qemu-img info a.qcow2
            $ qemu-img amend -o compat=1.1,lazy_refcounts=on a.qcow2
            $ qemu-img amend -o refcount_bits=32 -o size=3M a.qcow2
            $ qemu-img info a.qcow2
            $ qemu-img amend -o nothing=1 a.qcow2
            = a.qcow2 qcow2
            """ },
        { "dd", """
            ! qemu-img create -q -f qcow2 a.qcow2 1M
            ! qemu-io -c 'write -P 1 0 64k' -c 'write -P 2 64k 64k' a.qcow2
            $ qemu-img dd if=a.qcow2 of=b.raw bs=64k count=2
            $ qemu-img dd -f qcow2 -O qcow2 bs=4k skip=1 if=a.qcow2 of=c.qcow2
            $ qemu-img dd if=a.qcow2 of=d.raw bs=1M skip=0x0 count=1
            $ qemu-img dd if=a.qcow2 of=e.raw bs=0
            $ qemu-img dd if=nowhere of=f.raw
            = b.raw raw
            = c.qcow2 qcow2
            = d.raw raw
            """ },
        { "bench", """
            ~ rates
            ! qemu-img create -q -f raw a.raw 1M
            $ qemu-img bench -f raw -c 50 a.raw
            $ qemu-img bench -f raw -c 50 -d 4 -s 8k -S 16k -o 64k -w --pattern 3 --flush-interval 10 a.raw
            $ qemu-img bench -f raw -c 50 -q -t none a.raw
            $ qemu-img bench -f raw -c 50 --flush-interval 10 a.raw
            $ qemu-img bench -f raw -c 50 -w --flush-interval 10 a.raw
            = a.raw raw
            """ },
        { "encryption", """
            ~ encryption disk-size
            $ qemu-img create -f qcow2 --object secret,id=s,data=abc -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 e.qcow2 1M
            $ qemu-img info e.qcow2
            $ qemu-img create -f luks --object secret,id=s,data=abc -o key-secret=s,iter-time=10 e.luks 1M
            $ qemu-img convert --object secret,id=s,data=abc -O raw --image-opts driver=luks,key-secret=s,file.filename=e.luks p.raw
            $ qemu-img convert --object secret,id=s,data=abd -O raw --image-opts driver=luks,key-secret=s,file.filename=e.luks q.raw
            """ },
        { "names that put a filter over a file", """
            ~ rates disk-size
            ! qemu-img create -q -f qcow2 a.qcow2 8M
            $ qemu-io -c 'open -o driver=qcow2,file.align=4k blkdebug::a.qcow2' -c 'write -pP 10 0x200 2560' -c 'read -pP 10 512 2560'
            $ qemu-io -c 'open -o driver=blkdebug,image.driver=qcow2,max-write-zero=64k,opt-write-zero=64k blkdebug::a.qcow2' -c 'write -z 1000 200k'
            $ qemu-io -f qcow2 -c 'read -P 10 512 488' -c 'read -P 0 1000 2072' blkdebug::a.qcow2
            $ qemu-img info "json:{'driver':'qcow2','file':{'driver':'file','filename':'a.qcow2'}}"
            $ qemu-img info blkdebug:nowhere:a.qcow2
            $ qemu-img info blkdebug:a.qcow2
            = a.qcow2 qcow2
            """ },
        { "what the iotests found", """
            ~ rates disk-size
            ! qemu-img create -q -f raw small.raw 512
            ! qemu-img create -q -f qcow2 a.qcow2 64M
            ! qemu-img create -q -f qcow2 b.qcow2 65M
            ! qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=128k x.qcow2 64M
            $ qemu-img info small.raw
            $ qemu-img info file:a.qcow2
            $ qemu-img create -f qcow2 file:with:colon.qcow2 1M
            $ qemu-img info file:with:colon.qcow2
            $ qemu-img compare a.qcow2 b.qcow2
            ! qemu-io -c 'write -P 3 64M 64k' b.qcow2
            $ qemu-img compare a.qcow2 b.qcow2
            ! qemu-io -c 'write -P 3 1M 64k' b.qcow2
            $ qemu-img compare a.qcow2 b.qcow2
            $ qemu-img convert -O qcow2 -B a.qcow2 -o backing_fmt=qcow2 b.qcow2 c.qcow2
            $ qemu-img convert -O qcow2 -B a.qcow2 b.qcow2 d.qcow2
            $ qemu-io -c info a.qcow2
            $ qemu-io -c info x.qcow2
            $ qemu-io -f raw -c info small.raw
            $ qemu-io -c 'open -o driver=qcow2 json:{"file.filename":"a.qcow2"}' -c 'read 0 1536'
            $ qemu-io -c 'reopen -r' -c 'write 0 512' -c 'reopen -w' -c 'write 0 512' -c 'reopen -c none -o l2-cache-size=64k' -c 'read 0 512' a.qcow2
            $ qemu-io -c 'open -o cache-size=1M,l2-cache-entry-size=4k,cache-clean-interval=0 a.qcow2' -c 'read 0 512'
            $ qemu-io -c 'open -o cache-size=1M,l2-cache-size=2M a.qcow2'
            $ qemu-io -c 'open -o cache-size=1M,refcount-cache-size=2M a.qcow2'
            $ qemu-io -c 'open -o cache-size=2M,refcount-cache-size=1M,l2-cache-size=1M a.qcow2'
            $ qemu-io -c 'open -o l2-cache-entry-size=513 a.qcow2'
            = c.qcow2 qcow2
            """ },
        { "qemu-io", """
            ~ rates
            ! qemu-img create -q -f qcow2 base.qcow2 8M
            ! qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 a.qcow2
            $ qemu-io -c 'write -P 1 0 1M' -c 'read -v 512 16' -c 'read -P 1 0 64k' a.qcow2
            $ qemu-io -c 'read -P 2 0 64k' a.qcow2
            $ qemu-io -c 'aio_write 2M 64k' -c aio_flush -c flush -c 'discard 0 64k' -c 'write -z 3M 64k' a.qcow2
            $ qemu-io -c 'write -zu 4M 64k' -c 'write -c -P 9 5M 64k' -c 'writev 6M 4k 4k' -c 'readv 6M 4k 4k' a.qcow2
            $ qemu-io -c map -c 'alloc 0 8M' -c length a.qcow2
            $ qemu-io -c nothing a.qcow2
            $ qemu-io -c 'read 100M 512' a.qcow2
            $ qemu-io -r -c 'write 0 512' a.qcow2
            $ qemu-io -c 'read' a.qcow2
            $ qemu-io -c 'open a.qcow2' -c 'read -q 0 4k' -c close
            $ qemu-io -c 'read 0 4k'
            $ qemu-io -f qcow2 -c 'truncate 9M' -c l a.qcow2
            $ qemu-io nowhere
            $ qemu-io -c 'read -P 1 -s 512 -l 512 0 4k' -c 'write -q -f 0 1k' -c 'read 0 x' a.qcow2
            = a.qcow2 qcow2
            """ },
    };

    [OracleTheory]
    [MemberData(nameof(Scripts))]
    public Task Says_and_does_what_qemu_img_does(string name, string script)
    {
        Assert.NotEmpty(name);
        return new QemuScript(script).RunAsync();
    }
}
